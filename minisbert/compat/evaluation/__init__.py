"""The reference's evaluators."""

from __future__ import annotations

from ...similarity import SimilarityFunction
from .base import BaseEvaluator, SentenceEvaluator, SequentialEvaluator
from .nano_beir import NanoBEIREvaluator
from .pairs import BinaryClassificationEvaluator, EmbeddingSimilarityEvaluator, TripletEvaluator
from .ranking import ParaphraseMiningEvaluator, RerankingEvaluator
from .retrieval import InformationRetrievalEvaluator
from .teachers import LabelAccuracyEvaluator, MSEEvaluator, MSEEvaluatorFromDataFrame, TranslationEvaluator

__all__ = [
    "BaseEvaluator",
    "BinaryClassificationEvaluator",
    "EmbeddingSimilarityEvaluator",
    "InformationRetrievalEvaluator",
    "LabelAccuracyEvaluator",
    "MSEEvaluator",
    "MSEEvaluatorFromDataFrame",
    "NanoBEIREvaluator",
    "ParaphraseMiningEvaluator",
    "RerankingEvaluator",
    "SentenceEvaluator",
    "SequentialEvaluator",
    "SimilarityFunction",
    "TranslationEvaluator",
    "TripletEvaluator",
]
