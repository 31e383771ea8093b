"""Model cards: the README.md of a saved model."""

from .facts import CardFacts, DatasetFacts, TrainingFacts, versions
from .render import render_card

__all__ = ["CardFacts", "DatasetFacts", "TrainingFacts", "render_card", "versions"]
