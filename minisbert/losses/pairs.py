"""Losses over the distance of two texts that belong together (label 1) or not (label 0)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .base import Loss, check_labels, check_number
from .distances import PairDistance, SiameseDistanceMetric, check_distance, name_of


class _LabelledPairs(Loss):
    """Base of losses over the distances of labelled pairs.

    Args:
        distance_metric: one of `SiameseDistanceMetric`, or a function of (n, dim) and (n, dim) to (n,).
        margin: the distance from which texts that do not belong together count as apart.

    Raises:
        ConfigError: the margin is no number, or the distance no function.
    """

    max_columns = 2
    needs_labels = True
    label_range = (0.0, 1.0)

    def __init__(
        self,
        model: object = None,
        *,
        distance_metric: PairDistance = SiameseDistanceMetric.COSINE_DISTANCE,
        margin: float = 0.5,
    ) -> None:
        super().__init__()
        check_distance(distance_metric, SiameseDistanceMetric)
        self.distance_metric = distance_metric
        self.margin = check_number(margin, "margin")

    def get_config_dict(self) -> dict[str, Any]:
        """Return distance and margin."""
        return {"distance_metric": name_of(self.distance_metric, SiameseDistanceMetric), "margin": self.margin}


class ContrastiveLoss(_LabelledPairs):
    """`0.5 * (y * d ** 2 + (1 - y) * relu(margin - d) ** 2)`, the mean over the batch.

    Two text columns and a label y for each row, 1 for texts that belong together and 0 for others; d is their distance
    (Hadsell et al. 2006, doi 10.1109/CVPR.2006.100).

    Args:
        model: not used; accepted because code for the reference passes it.
        distance_metric: one of `SiameseDistanceMetric`, or a function of (n, dim) and (n, dim) to (n,).
        margin: the distance from which texts that do not belong together count as apart.
        size_average: return the mean; the sum if False.

    Raises:
        ConfigError: the margin is no number, or the distance no function.
    """

    def __init__(
        self,
        model: object = None,
        *,
        distance_metric: PairDistance = SiameseDistanceMetric.COSINE_DISTANCE,
        margin: float = 0.5,
        size_average: bool = True,
    ) -> None:
        super().__init__(model, distance_metric=distance_metric, margin=margin)
        self.size_average = size_average

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the loss of two (batch, dim) tensors and (batch,) labels, a scalar."""
        first, second = self.columns(embeddings)
        target = check_labels(labels, len(first), loss=type(self).__name__, exact=True).to(first.dtype)
        distances = self.distance_metric(first, second)
        losses = 0.5 * (target * distances.square() + (1 - target) * (self.margin - distances).relu().square())
        return losses.mean() if self.size_average else losses.sum()

    def get_config_dict(self) -> dict[str, Any]:
        """Return distance, margin, and whether the mean is taken."""
        return {**super().get_config_dict(), "size_average": self.size_average}


class OnlineContrastiveLoss(_LabelledPairs):
    """`sum(d_p ** 2) + sum(relu(margin - d_n) ** 2)` over the hard pairs of the batch.

    Two text columns and a label for each row, 1 for texts that belong together and 0 for others. Pairs of label 0 are
    hard if they are closer than the farthest pair of label 1; pairs of label 1 are hard if they are farther than the
    closest pair of label 0. If one of the labels is missing, the others are compared with their own mean.

    Args:
        model: not used; accepted because code for the reference passes it.
        distance_metric: one of `SiameseDistanceMetric`, or a function of (n, dim) and (n, dim) to (n,).
        margin: the distance from which texts that do not belong together count as apart.

    Raises:
        ConfigError: the margin is no number, or the distance no function.
    """

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the loss of two (batch, dim) tensors and (batch,) labels, a scalar."""
        first, second = self.columns(embeddings)
        target = check_labels(labels, len(first), loss=type(self).__name__)
        distances = self.distance_metric(first, second)
        positives, negatives = distances[target == 1], distances[target == 0]
        farthest = positives.max() if len(positives) else negatives.mean()
        closest = negatives.min() if len(negatives) else positives.mean()
        hard_negatives, hard_positives = negatives[negatives < farthest], positives[positives > closest]
        return hard_positives.square().sum() + (self.margin - hard_negatives).relu().square().sum()
