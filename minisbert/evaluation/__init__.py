"""Evaluators: how good a model is at a task."""

from .base import Evaluator
from .similarity import EmbeddingSimilarityEvaluator

__all__ = ["EmbeddingSimilarityEvaluator", "Evaluator"]
