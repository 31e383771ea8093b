"""Evaluators: how good a model is at a task."""

from .base import Evaluator
from .binary import BinaryClassificationEvaluator
from .paraphrases import ParaphraseMiningEvaluator
from .reranking import RerankingEvaluator
from .retrieval import InformationRetrievalEvaluator
from .sequential import SequentialEvaluator
from .similarity import EmbeddingSimilarityEvaluator
from .triplet import TripletEvaluator

__all__ = [
    "BinaryClassificationEvaluator",
    "EmbeddingSimilarityEvaluator",
    "Evaluator",
    "InformationRetrievalEvaluator",
    "ParaphraseMiningEvaluator",
    "RerankingEvaluator",
    "SequentialEvaluator",
    "TripletEvaluator",
]
