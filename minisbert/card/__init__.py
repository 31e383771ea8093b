"""Model cards: the README.md of a saved model, to facts and back.

Names are imported when they are first used: training and loading a model need few of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import attributes

if TYPE_CHECKING:
    from .comparison import differences
    from .composing import compose
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
    from .rendering import render

__all__ = [
    "CardFacts",
    "Citation",
    "ColumnStatistics",
    "DatasetFacts",
    "Description",
    "Emissions",
    "Evaluation",
    "FrontMatter",
    "IndexedMetric",
    "IndexedResult",
    "Link",
    "LossFacts",
    "Metric",
    "ModelIndex",
    "NamedDataset",
    "Picture",
    "TrainingLogs",
    "TrainingTime",
    "Usage",
    "WidgetExample",
    "compose",
    "differences",
    "parse",
    "render",
    "repair",
]

_HOMES = {
    "compose": "composing",
    "differences": "comparison",
    "repair": "markdown",
    "parse": "parsing",
    "render": "rendering",
}

__getattr__, __dir__ = attributes(__name__, __all__, _HOMES, otherwise="facts")
