"""Losses over embeddings, and how a model card names them."""

from .base import Loss
from .cached import (
    CachedGISTEmbedLoss,
    CachedMultipleNegativesRankingLoss,
    CachedMultipleNegativesSymmetricRankingLoss,
)
from .classification import SoftmaxLoss
from .contrastive_tension import ContrastiveTensionLossInBatchNegatives
from .cosine import CosineSimilarityLoss
from .distances import BatchHardTripletLossDistanceFunction, SiameseDistanceMetric, TripletDistanceMetric
from .distillation import DistillKLDivLoss, EmbedDistillLoss, MarginMSELoss, MSELoss
from .guided import GISTEmbedLoss
from .matryoshka import MatryoshkaLoss
from .naming import loss_by_name, loss_class, loss_names, needs_model
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

__all__ = [
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
    "ContrastiveTensionLossInBatchNegatives",
    "CosineSimilarityLoss",
    "DistillKLDivLoss",
    "EmbedDistillLoss",
    "GISTEmbedLoss",
    "GlobalOrthogonalRegularizationLoss",
    "Loss",
    "MSELoss",
    "MarginMSELoss",
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
]
