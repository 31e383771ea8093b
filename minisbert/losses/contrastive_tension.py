"""Contrastive tension: a model and a trained copy of it must agree on which texts are the same."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, InputError
from ..similarity import SimilarityMatrix, cos_sim
from .base import Loss, aligned, check_callable, check_positive, function_name


class ContrastiveTensionLossInBatchNegatives(Loss):
    """Cross entropy of each text under a copy of the model among the texts of the batch under the model, and reversed.

    One text column, no labels. The copy starts from the weights of the model and is trained too; it is not saved with
    the model (Carlsson et al. 2021, https://openreview.net/forum?id=Ov_sMNau-PF).

    Args:
        model: the model to train, which is copied.
        scale: multiplies the similarities; it is trained, by its logarithm.
        similarity_fct: all pairs, (n, d) and (m, d) to (n, m).

    Attributes:
        copied: the copy.
        logit_scale: logarithm of the scale, a parameter.

    Raises:
        ConfigError: there is no model, or the scale is not positive.
    """

    min_columns = 1
    max_columns = 1
    trains_guide = True

    def __init__(self, model: object, *, scale: float = 20.0, similarity_fct: SimilarityMatrix = cos_sim) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise ConfigError(f"got the model {type(model).__name__}; {type(self).__name__} copies it: pass it first")
        self.similarity_fct = check_callable(similarity_fct, "similarity_fct", "util.cos_sim")
        self.logit_scale = nn.Parameter(torch.tensor(math.log(check_positive(scale, "scale"))))
        self.copied = copy.deepcopy(model)

    @property
    def guide(self) -> nn.Module:
        """The copy of the model."""
        return self.copied

    def forward(
        self, embeddings: Sequence[Tensor], labels: Tensor | None = None, guided: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return the loss of one (batch, dim) tensor of the model and one of the copy, a scalar."""
        (texts,) = self.columns(embeddings)
        if len(guided) != 1 or len(guided[0]) != len(texts):
            raise InputError(
                f"got embeddings of the copy for {[len(part) for part in guided]} rows; {type(self).__name__} expects "
                f"{[len(texts)]}: pass them as third argument"
            )
        (copies,) = aligned(guided, loss=type(self).__name__)
        scores = self.similarity_fct(copies, texts) * self.logit_scale.exp()  # (batch, batch)
        own = torch.arange(len(texts), device=texts.device)
        return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2

    def get_config_dict(self) -> dict[str, Any]:
        """Return the scale, as far as it is trained, and the similarity."""
        return {"scale": self.logit_scale.exp().item(), "similarity_fct": function_name(self.similarity_fct)}
