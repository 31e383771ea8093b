"""The reference's evaluators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...similarity import SimilarityFunction
from ..finder import names_of
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

if not TYPE_CHECKING:  # which would then believe that every name is there
    __getattr__ = names_of(__name__)
