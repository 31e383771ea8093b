"""Triplet losses: of rows that are triplets, and of all triplets within a batch of labelled texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ... import losses
from ...losses.base import Labels
from ...losses.distances import (
    BatchHardTripletLossDistanceFunction,
    MatrixDistance,
    PairDistance,
    TripletDistanceMetric,
)
from .features import FeatureLoss

_LARGEST_EXACT = 2**24  # labels are float32 in training


class TripletLoss(FeatureLoss, losses.TripletLoss):
    """`minisbert.losses.TripletLoss` that holds the model.

    Args:
        model: embeds the texts.
        distance_metric: one of `TripletDistanceMetric`, or a function of (n, dim) and (n, dim) to (n,).
        triplet_margin: how much farther than the positive the negative has to be.
    """

    def __init__(
        self,
        model: Any,
        distance_metric: PairDistance = TripletDistanceMetric.EUCLIDEAN,
        triplet_margin: float = 5,
    ) -> None:
        super().__init__(model, distance_metric=distance_metric, triplet_margin=triplet_margin)
        self.hold(model)


class _BatchTriplets(FeatureLoss):
    """Base of the losses over the triplets within a batch, which reads the first column and any labels."""

    held_as = "sentence_embedder"
    columns_read = 1
    margin: float

    def __init__(
        self,
        model: Any,
        distance_metric: MatrixDistance = BatchHardTripletLossDistanceFunction.euclidean_distance,
        margin: float = 5,
    ) -> None:
        super().__init__(model, distance_metric=distance_metric, margin=margin)
        self.hold(model)

    @property
    def triplet_margin(self) -> float:
        """The margin."""
        return self.margin

    def check_rows(self, texts: Sequence[str], labels: Labels | None) -> None:
        """Check that training rows fit: labels may be any numbers that float32 tells apart."""
        if labels is None or len(getattr(labels, "shape", ())) > 1 or max(map(abs, labels)) > _LARGEST_EXACT:
            super().check_rows(texts, labels)
            return
        super().check_rows(texts, [0.0] * len(labels))
        if any(label < 0 or not float(label).is_integer() for label in labels):
            self.warn_once(
                f"got labels that are no whole numbers from 0, and {type(self).__name__} takes each for a class: "
                f"number them"
            )


class BatchAllTripletLoss(_BatchTriplets, losses.BatchAllTripletLoss):
    """`minisbert.losses.BatchAllTripletLoss` that holds the model.

    Args:
        model: embeds the texts.
        distance_metric: one of `BatchHardTripletLossDistanceFunction`, or a function of (n, dim) to (n, n).
        margin: how much farther than the positive the negative has to be.
    """

    def batch_all_triplet_loss(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        """Return the loss of (batch,) labels and a (batch, dim) tensor, a scalar."""
        value: Tensor = self.computed([embeddings], labels)
        return value


class BatchHardTripletLoss(_BatchTriplets, losses.BatchHardTripletLoss):
    """`minisbert.losses.BatchHardTripletLoss` that holds the model.

    Args:
        model: embeds the texts.
        distance_metric: one of `BatchHardTripletLossDistanceFunction`, or a function of (n, dim) to (n, n).
        margin: how much farther than the positive the negative has to be.
    """

    def batch_hard_triplet_loss(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        """Return the loss of (batch,) labels and a (batch, dim) tensor, a scalar."""
        value: Tensor = self.computed([embeddings], labels)
        return value

    @staticmethod
    def get_triplet_mask(labels: Tensor) -> Tensor:
        """Return True where rows i, j and k differ, and i has the label of j and another than k: (n, n, n)."""
        positive = BatchHardTripletLoss.get_anchor_positive_triplet_mask(labels)
        negative = BatchHardTripletLoss.get_anchor_negative_triplet_mask(labels)
        return positive[:, :, None] & negative[:, None, :]

    @staticmethod
    def get_anchor_positive_triplet_mask(labels: Tensor) -> Tensor:
        """Return True for two different rows of one label: (n, n)."""
        return (labels == labels[:, None]) & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)

    @staticmethod
    def get_anchor_negative_triplet_mask(labels: Tensor) -> Tensor:
        """Return True for two rows of different labels: (n, n)."""
        return labels != labels[:, None]


class BatchHardSoftMarginTripletLoss(losses.BatchHardSoftMarginTripletLoss, BatchHardTripletLoss):
    """`minisbert.losses.BatchHardSoftMarginTripletLoss` that holds the model.

    Args:
        model: embeds the texts.
        distance_metric: one of `BatchHardTripletLossDistanceFunction`, or a function of (n, dim) to (n, n).
    """

    def __init__(
        self,
        model: Any,
        distance_metric: MatrixDistance = BatchHardTripletLossDistanceFunction.euclidean_distance,
    ) -> None:
        super().__init__(model, distance_metric=distance_metric)

    def batch_hard_triplet_soft_margin_loss(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        """Return the loss of (batch,) labels and a (batch, dim) tensor, a scalar."""
        value: Tensor = self.computed([embeddings], labels)
        return value


class BatchSemiHardTripletLoss(_BatchTriplets, losses.BatchSemiHardTripletLoss):
    """`minisbert.losses.BatchSemiHardTripletLoss` that holds the model.

    Args:
        model: embeds the texts.
        distance_metric: one of `BatchHardTripletLossDistanceFunction`, or a function of (n, dim) to (n, n).
        margin: how much farther than the positive the negative has to be.
    """

    def batch_semi_hard_triplet_loss(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        """Return the loss of (batch,) labels and a (batch, dim) tensor, a scalar."""
        value: Tensor = self.computed([embeddings], labels)
        return value
