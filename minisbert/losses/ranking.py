"""Ranking of each anchor's own positive above all other texts of the batch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import kernels
from ..errors import ConfigError, InputError
from ..similarity import SimilarityMatrix, cos_sim, dot_score
from .base import Loss, aligned


class MultipleNegativesRankingLoss(Loss):
    """Cross entropy of each anchor's positive among every positive and hard negative of the batch (InfoNCE).

    Columns are (anchor, positive) and then any number of hard negatives; labels are ignored. With s the scaled
    similarities of anchor i to all candidates, the loss is the mean over i of `-(s[own positive] - logsumexp(s))`
    (Henderson et al. 2017; van den Oord et al. 2018).

    Args:
        model: not used; accepted because code for the reference passes it.
        scale: multiplies the similarities, the inverse of a temperature.
        similarity_fct: all pairs, (n, d) and (m, d) to (n, m): `util.cos_sim` or `util.dot_score`.

    Raises:
        ConfigError: the scale is not positive.
    """

    def __init__(
        self, model: object = None, *, scale: float = 20.0, similarity_fct: SimilarityMatrix = cos_sim
    ) -> None:
        super().__init__()
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale <= sys.float_info.max:
            raise ConfigError(f"got scale {scale!r}; expected a positive number")
        if not callable(similarity_fct):
            raise ConfigError(f"got similarity_fct {similarity_fct!r}; expected a function, such as util.cos_sim")
        self.scale = scale
        self.similarity_fct = similarity_fct
        self.recordable = similarity_fct in (cos_sim, dot_score)

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the loss of two or more (batch, dim) tensors, a scalar."""
        name = type(self).__name__
        if len(embeddings) < 2:
            raise InputError(f"got {len(embeddings)} text column(s); {name} expects at least 2: anchor, positive")
        anchors, *candidates = aligned(embeddings, loss=name)
        texts = torch.cat(candidates)  # (batch * candidates, dim)
        if self.similarity_fct is cos_sim and (streaming := kernels.contrastive(anchors, texts)) is not None:
            return streaming(anchors, texts, scale=self.scale)
        return self.rank(self.similarity_fct(anchors, texts) * self.scale)  # of (batch, batch * candidates)

    def rank(self, scores: Tensor) -> Tensor:
        """Return the loss of scaled similarities, (batch, candidates), with each anchor's positive on the diagonal."""
        return -(scores.diagonal() - scores.logsumexp(dim=1)).mean()

    def get_config_dict(self) -> dict[str, Any]:
        """Return scale and similarity, and the settings of the reference that are fixed here."""
        return {
            "scale": self.scale,
            "similarity_fct": getattr(self.similarity_fct, "__name__", "custom"),
            "gather_across_devices": False,
            "directions": ("query_to_doc",),
            "partition_mode": "joint",
            "hardness_mode": None,
            "hardness_strength": 0.0,
        }
