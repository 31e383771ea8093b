"""Model cards: the README.md of a saved model, to facts and back.

Names are imported when they are first used: training and loading a model need few of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import attributes

if TYPE_CHECKING:
    from .comparison import differences
    from .composing import ModelFacts, compose
    from .examples import Examples, choose_examples
    from .facts import (
        CardFacts,
        Citation,
        ColumnStatistics,
        DatasetFacts,
        Description,
        Emissions,
        Evaluation,
        FrontMatter,
        IndexedMetric,
        IndexedResult,
        Link,
        LossFacts,
        Metric,
        ModelIndex,
        NamedDataset,
        Picture,
        TrainingLogs,
        TrainingTime,
        Usage,
        WidgetExample,
    )
    from .markdown import repair
    from .parsing import parse
    from .record import Evaluated, TrainedOn, TrainingFacts, evaluated, versions
    from .rendering import render

__all__ = [
    "CardFacts",
    "Citation",
    "ColumnStatistics",
    "DatasetFacts",
    "Description",
    "Emissions",
    "Evaluated",
    "Evaluation",
    "Examples",
    "FrontMatter",
    "IndexedMetric",
    "IndexedResult",
    "Link",
    "LossFacts",
    "Metric",
    "ModelFacts",
    "ModelIndex",
    "NamedDataset",
    "Picture",
    "TrainedOn",
    "TrainingFacts",
    "TrainingLogs",
    "TrainingTime",
    "Usage",
    "WidgetExample",
    "choose_examples",
    "compose",
    "differences",
    "evaluated",
    "parse",
    "render",
    "repair",
    "versions",
]

_HOMES = {
    "ModelFacts": "composing",
    "compose": "composing",
    "differences": "comparison",
    "Examples": "examples",
    "choose_examples": "examples",
    "repair": "markdown",
    "parse": "parsing",
    "Evaluated": "record",
    "TrainedOn": "record",
    "TrainingFacts": "record",
    "evaluated": "record",
    "versions": "record",
    "render": "rendering",
}

__getattr__, __dir__ = attributes(__name__, __all__, _HOMES, otherwise="facts")
