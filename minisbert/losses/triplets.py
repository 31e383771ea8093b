"""Triplet losses: of rows that are triplets, and of all triplets within a batch of labelled texts.

The latter are those of Hermans et al. 2017 (https://arxiv.org/abs/1703.07737) and, for semi-hard negatives, of Schroff
et al. 2015 (https://arxiv.org/abs/1503.03832).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .base import Loss, check_number
from .distances import (
    BatchHardTripletLossDistanceFunction,
    MatrixDistance,
    PairDistance,
    TripletDistanceMetric,
    check_distance,
    name_of,
)

_TINY = 1e-16


class TripletLoss(Loss):
    """`relu(d(anchor, positive) - d(anchor, negative) + triplet_margin)`, the mean over the batch.

    Columns are (anchor, positive, negative); labels are ignored. d is a distance (Schroff et al. 2015).

    Args:
        model: not used; accepted because code for the reference passes it.
        distance_metric: one of `TripletDistanceMetric`, or a function of (n, dim) and (n, dim) to (n,).
        triplet_margin: how much farther than the positive the negative has to be.

    Raises:
        ConfigError: the margin is no number, or the distance no function.
    """

    min_columns = 3
    max_columns = 3

    def __init__(
        self,
        model: object = None,
        *,
        distance_metric: PairDistance = TripletDistanceMetric.EUCLIDEAN,
        triplet_margin: float = 5,
    ) -> None:
        super().__init__()
        check_distance(distance_metric, TripletDistanceMetric)
        self.distance_metric = distance_metric
        self.triplet_margin = check_number(triplet_margin, "triplet_margin")

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the loss of three (batch, dim) tensors, a scalar."""
        anchors, positives, negatives = self.columns(embeddings)
        near, far = self.distance_metric(anchors, positives), self.distance_metric(anchors, negatives)
        return (near - far + self.triplet_margin).relu().mean()

    def get_config_dict(self) -> dict[str, Any]:
        """Return distance and margin."""
        return {
            "distance_metric": name_of(self.distance_metric, TripletDistanceMetric),
            "triplet_margin": self.triplet_margin,
        }


class _BatchTriplets(Loss):
    """Base of losses over the triplets within a batch: one text column, and a class for each row.

    In a triplet (a, p, n) of rows, p has the class of a and n another one.

    Args:
        model: not used; accepted because code for the reference passes it.
        distance_metric: one of `BatchHardTripletLossDistanceFunction`, or a function of (n, dim) to (n, n).
        margin: how much farther than the positive the negative has to be.

    Raises:
        ConfigError: the margin is no number, or the distance no function.
    """

    min_columns = 1
    max_columns = 1
    needs_labels = True
    label_kind = "class"

    def __init__(
        self,
        model: object = None,
        *,
        distance_metric: MatrixDistance = BatchHardTripletLossDistanceFunction.euclidean_distance,
        margin: float = 5,
    ) -> None:
        super().__init__()
        check_distance(distance_metric, BatchHardTripletLossDistanceFunction)
        self.distance_metric = distance_metric
        self.margin = check_number(margin, "margin")

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the loss of one (batch, dim) tensor and (batch,) classes, a scalar."""
        (texts,) = self.columns(embeddings)
        if labels is None or labels.numel() != len(texts):
            got = "no classes" if labels is None else f"{labels.numel()} classes for {len(texts)} rows"
            raise InputError(f"got {got}; {type(self).__name__} expects one for each row")
        classes = labels.view(-1)
        return self.compare(self.distance_metric(texts), classes[:, None] == classes)

    def compare(self, distances: Tensor, same: Tensor) -> Tensor:
        """Return the loss of the distances of all pairs, (n, n), and whether a pair is of one class, (n, n)."""
        raise NotImplementedError

    def get_config_dict(self) -> dict[str, Any]:
        """Return distance and margin."""
        distance = name_of(self.distance_metric, BatchHardTripletLossDistanceFunction)
        return {"distance_metric": distance, "margin": self.margin}


class BatchAllTripletLoss(_BatchTriplets):
    """`relu(d(a, p) - d(a, n) + margin)`, the mean over the triplets of the batch where it is above 0.

    One text column, and a class for each row; p has the class of a, n another one (Hermans et al. 2017). Arguments are
    those of `BatchHardTripletLoss`.
    """

    def compare(self, distances: Tensor, same: Tensor) -> Tensor:
        """Return the loss of the distances of all pairs, (n, n), and whether a pair is of one class, (n, n)."""
        anchors, positives = _others(same).nonzero(as_tuple=True)  # (pairs,)
        gaps = distances[anchors, positives][:, None] - distances[anchors] + self.margin  # (pairs, n)
        losses = (gaps * ~same[anchors]).clamp(min=0)
        return losses.sum() / ((losses > _TINY).sum() + _TINY)


class BatchHardTripletLoss(_BatchTriplets):
    """`relu(max d(a, p) - min d(a, n) + margin)`, the mean over the rows of the batch as a.

    One text column, and a class for each row; p are the other rows with the class of a, n the rows with another one
    (Hermans et al. 2017). Without any p the first distance is 0; without any n the second is the largest of a to any
    row.

    Args:
        model: not used; accepted because code for the reference passes it.
        distance_metric: one of `BatchHardTripletLossDistanceFunction`, or a function of (n, dim) to (n, n).
        margin: how much farther than the positive the negative has to be.

    Raises:
        ConfigError: the margin is no number, or the distance no function.
    """

    def compare(self, distances: Tensor, same: Tensor) -> Tensor:
        """Return the loss of the distances of all pairs, (n, n), and whether a pair is of one class, (n, n)."""
        return (_hardest_gap(distances, same) + self.margin).relu().mean()


class BatchHardSoftMarginTripletLoss(_BatchTriplets):
    """`log(1 + exp(max d(a, p) - min d(a, n)))`, the mean over the rows of the batch as a.

    It is `BatchHardTripletLoss` without a margin (Hermans et al. 2017).

    Args:
        model: not used; accepted because code for the reference passes it.
        distance_metric: one of `BatchHardTripletLossDistanceFunction`, or a function of (n, dim) to (n, n).

    Raises:
        ConfigError: the distance is no function.
    """

    def __init__(
        self,
        model: object = None,
        *,
        distance_metric: MatrixDistance = BatchHardTripletLossDistanceFunction.euclidean_distance,
    ) -> None:
        super().__init__(model, distance_metric=distance_metric)

    def compare(self, distances: Tensor, same: Tensor) -> Tensor:
        """Return the loss of the distances of all pairs, (n, n), and whether a pair is of one class, (n, n)."""
        return F.softplus(_hardest_gap(distances, same), threshold=30).mean()  # from there on the 1 is lost to rounding

    def get_config_dict(self) -> dict[str, Any]:
        """Return the distance."""
        return {"distance_metric": super().get_config_dict()["distance_metric"]}


class BatchSemiHardTripletLoss(_BatchTriplets):
    """`relu(d(a, p) - d(a, n) + margin)`, the mean over the pairs (a, p) of the batch, with n by distance.

    One text column, and a class for each row; p has the class of a. n is the closest row of another class that is
    farther than p; if there is none, the farthest of another class (Schroff et al. 2015). Arguments are those of
    `BatchHardTripletLoss`.
    """

    def compare(self, distances: Tensor, same: Tensor) -> Tensor:
        """Return the loss of the distances of all pairs, (n, n), and whether a pair is of one class, (n, n)."""
        pairs = _others(same)
        sorted_negatives = distances.masked_fill(same, torch.inf).sort(dim=1, stable=True).values
        first_farther = torch.searchsorted(sorted_negatives.detach(), distances.detach().contiguous(), right=True)
        closest = sorted_negatives.gather(1, first_farther.clamp(max=len(same) - 1))  # infinite if there is none
        least = distances.min(dim=1, keepdim=True).values
        farthest = least + ((distances - least) * ~same).max(dim=1, keepdim=True).values
        gaps = (distances - torch.where(closest.isfinite(), closest, farthest) + self.margin) * pairs
        return torch.maximum(gaps, torch.zeros_like(gaps)).sum() / pairs.sum().clamp(min=1)


def _others(same: Tensor) -> Tensor:
    """Return True for the pairs of two different rows of one class: (n, n)."""
    return same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)


def _hardest_gap(distances: Tensor, same: Tensor) -> Tensor:
    """Return by how much the farthest row of its class is farther than the closest of another: (n,)."""
    positive = (distances * _others(same)).max(dim=1).values
    largest = distances.max(dim=1, keepdim=True).values
    negative = (distances + largest * same).min(dim=1).values
    return positive - negative
