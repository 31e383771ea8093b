"""Model cards: the README.md of a saved model."""

from .facts import CardFacts, TrainingFacts, versions
from .render import render_card

__all__ = ["CardFacts", "TrainingFacts", "render_card", "versions"]
