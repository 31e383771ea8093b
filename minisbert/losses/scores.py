"""Losses over the order of scores: a pair with a higher label must be more similar than one with a lower label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..similarity import SimilarityMatrix, pairwise_angle_sim, pairwise_cos_sim
from .base import Labels, Loss, check_callable, check_labels, check_positive, function_name


class CoSENTLoss(Loss):
    """`log(1 + sum(exp(scale * (s_i - s_j))))` over all pairs of rows i, j of the batch with label i below label j.

    Two text columns and a label for each row; only the order of the labels counts. s is the similarity of the two texts
    of a row. (CoSENT: Huang et al. 2024, doi 10.1109/TASLP.2024.3402087.)

    Args:
        model: not used; accepted because code for the reference passes it.
        scale: multiplies the similarities, the inverse of a temperature.
        similarity_fct: row by row, (n, d) and (n, d) to (n,).

    Raises:
        ConfigError: the scale is not positive.
    """

    max_columns: int | None = 2
    needs_labels = True

    def __init__(
        self, model: object = None, *, scale: float = 20.0, similarity_fct: SimilarityMatrix = pairwise_cos_sim
    ) -> None:
        super().__init__()
        self.scale = check_positive(scale, "scale")
        self.similarity_fct = check_callable(similarity_fct, "similarity_fct", "util.pairwise_cos_sim")

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the loss of two (batch, dim) tensors and (batch,) labels, a scalar."""
        first, second = self.columns(embeddings)
        return self.compare(first, second, check_labels(labels, len(first), loss=type(self).__name__, exact=True))

    def compare(self, first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of two (n, dim) tensors and (n,) labels, a scalar."""
        order = labels.argsort().flip(0)
        scores = (self.similarity_fct(first, second) * self.scale)[order]  # (n,), the highest label first
        # sums[k] is log(sum(exp(-s_j))) over the first k rows. The rows with a higher label than row i come first, and
        # `higher` counts them, so this takes memory for n numbers, not for n * n pairs.
        sums = F.pad((-scores).logcumsumexp(dim=0), (1, 0), value=-torch.inf)
        falling = -labels[order]
        higher = torch.searchsorted(falling, falling)
        # The lowest label first: sums in the order of the reference round as its sums do.
        wrong = scores.flip(0) + sums[higher.flip(0)]
        return F.pad(wrong, (1, 0)).logsumexp(dim=0)  # the added zero is the 1 in the formula

    def get_config_dict(self) -> dict[str, Any]:
        """Return scale and similarity."""
        return {"scale": self.scale, "similarity_fct": function_name(self.similarity_fct)}


class AnglELoss(CoSENTLoss):
    """CoSENTLoss with the angle of embeddings as complex numbers, `util.pairwise_angle_sim`, as similarity.

    Two text columns with a label for each row; or an anchor, a positive and any number of negatives. Of these the pair
    (anchor, positive) has the label 1 and each (anchor, negative) the label 0; with a label y for each row they have
    the labels y and 1 - y. (AnglE: Li and Li 2024, https://aclanthology.org/2024.acl-long.101/.)

    Args:
        model: not used; accepted because code for the reference passes it.
        scale: multiplies the similarities, the inverse of a temperature.

    Raises:
        ConfigError: the scale is not positive.
    """

    max_columns = None

    def __init__(self, model: object = None, *, scale: float = 20.0) -> None:
        super().__init__(model, scale=scale, similarity_fct=pairwise_angle_sim)

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the loss of two or more (batch, dim) tensors and (batch,) labels, a scalar."""
        anchors, *others = self.columns(embeddings)
        name, rows = type(self).__name__, len(anchors)
        if labels is None and len(others) == 1:
            raise InputError(f"got no labels; {name} expects one number for each of the {rows} pairs, or negatives")
        values = anchors.new_ones(rows) if labels is None else check_labels(labels, rows, loss=name, exact=True)
        expected = torch.cat([values, (1 - values).repeat(len(others) - 1)])
        return self.compare(anchors.repeat(len(others), 1), torch.cat(others), expected)

    def check_rows(self, texts: Sequence[str], labels: Labels | None) -> None:
        """Check that training rows fit; labels are needed for pairs only."""
        super().check_rows(texts, [1.0] if labels is None and len(texts) > 2 else labels)
