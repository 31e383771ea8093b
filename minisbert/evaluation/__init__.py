"""Evaluators: the quality of a model at a task. Those that few runs need are imported when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .binary import BinaryClassificationEvaluator
from .evaluator import Evaluator, SequentialEvaluator
from .paraphrases import ParaphraseMiningEvaluator
from .reranking import RerankingEvaluator
from .retrieval import InformationRetrievalEvaluator
from .similarity import EmbeddingSimilarityEvaluator
from .triplet import TripletEvaluator

if TYPE_CHECKING:
    from .label_accuracy import LabelAccuracyEvaluator
    from .mse import MSEEvaluator, MSEEvaluatorFromDataFrame
    from .nano_beir import NanoBEIREvaluator
    from .translation import TranslationEvaluator

__all__ = [
    "BinaryClassificationEvaluator",
    "EmbeddingSimilarityEvaluator",
    "Evaluator",
    "InformationRetrievalEvaluator",
    "LabelAccuracyEvaluator",
    "MSEEvaluator",
    "MSEEvaluatorFromDataFrame",
    "NanoBEIREvaluator",
    "ParaphraseMiningEvaluator",
    "RerankingEvaluator",
    "SequentialEvaluator",
    "TranslationEvaluator",
    "TripletEvaluator",
]

_HOMES = {
    "LabelAccuracyEvaluator": "label_accuracy",
    "MSEEvaluator": "mse",
    "MSEEvaluatorFromDataFrame": "mse",
    "NanoBEIREvaluator": "nano_beir",
    "TranslationEvaluator": "translation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
