"""Losses over embeddings."""

from .base import Loss
from .cosine import CosineSimilarityLoss
from .ranking import MultipleNegativesRankingLoss

__all__ = ["CosineSimilarityLoss", "Loss", "MultipleNegativesRankingLoss"]
