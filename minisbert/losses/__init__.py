"""Losses over embeddings, and how a model card names them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Loss
from .cached import (
    CachedGISTEmbedLoss,
    CachedMultipleNegativesRankingLoss,
    CachedMultipleNegativesSymmetricRankingLoss,
)
from .classification import SoftmaxLoss
from .contrastive_tension import ContrastiveTensionLoss, ContrastiveTensionLossInBatchNegatives
from .cosine import CosineSimilarityLoss
from .denoising import DenoisingAutoEncoderLoss
from .distances import BatchHardTripletLossDistanceFunction, SiameseDistanceMetric, TripletDistanceMetric
from .distillation import DistillKLDivLoss, EmbedDistillLoss, MarginMSELoss, MSELoss
from .guided import GISTEmbedLoss
from .matryoshka import AdaptiveLayerLoss, Matryoshka2dLoss, MatryoshkaLoss
from .naming import loss_by_name, loss_class, loss_names, needs_model, with_classes
from .pairs import ContrastiveLoss, OnlineContrastiveLoss
from .ranking import MegaBatchMarginLoss, MultipleNegativesRankingLoss, MultipleNegativesSymmetricRankingLoss
from .regularization import GlobalOrthogonalRegularizationLoss
from .scores import AnglELoss, CoSENTLoss
from .triplets import (
    BatchAllTripletLoss,
    BatchHardSoftMarginTripletLoss,
    BatchHardTripletLoss,
    BatchSemiHardTripletLoss,
    TripletLoss,
)

if TYPE_CHECKING:
    from ..data.loaders import ContrastiveTensionDataLoader

__all__ = [
    "AdaptiveLayerLoss",
    "AnglELoss",
    "BatchAllTripletLoss",
    "BatchHardSoftMarginTripletLoss",
    "BatchHardTripletLoss",
    "BatchHardTripletLossDistanceFunction",
    "BatchSemiHardTripletLoss",
    "CachedGISTEmbedLoss",
    "CachedMultipleNegativesRankingLoss",
    "CachedMultipleNegativesSymmetricRankingLoss",
    "CoSENTLoss",
    "ContrastiveLoss",
    "ContrastiveTensionDataLoader",
    "ContrastiveTensionLoss",
    "ContrastiveTensionLossInBatchNegatives",
    "CosineSimilarityLoss",
    "DenoisingAutoEncoderLoss",
    "DistillKLDivLoss",
    "EmbedDistillLoss",
    "GISTEmbedLoss",
    "GlobalOrthogonalRegularizationLoss",
    "Loss",
    "MSELoss",
    "MarginMSELoss",
    "Matryoshka2dLoss",
    "MatryoshkaLoss",
    "MegaBatchMarginLoss",
    "MultipleNegativesRankingLoss",
    "MultipleNegativesSymmetricRankingLoss",
    "OnlineContrastiveLoss",
    "SiameseDistanceMetric",
    "SoftmaxLoss",
    "TripletDistanceMetric",
    "TripletLoss",
    "loss_by_name",
    "loss_class",
    "loss_names",
    "needs_model",
    "with_classes",
]


def __getattr__(name: str) -> Any:
    """Import the loader of rows when it is first used."""
    if name != "ContrastiveTensionDataLoader":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ..data.loaders import ContrastiveTensionDataLoader

    return ContrastiveTensionDataLoader
