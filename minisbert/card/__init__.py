"""Model cards: the README.md of a saved model, to facts and back."""

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
    "TrainedOn",
    "TrainingFacts",
    "TrainingLogs",
    "TrainingTime",
    "Usage",
    "WidgetExample",
    "choose_examples",
    "compose",
    "evaluated",
    "parse",
    "render",
    "repair",
    "versions",
]
