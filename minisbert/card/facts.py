"""What a model card states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..version import __version__


@dataclass(frozen=True)
class DatasetFacts:
    """What a model was trained on.

    Attributes:
        name: of the data set; "" for the only one.
        rows: training rows.
        text_columns: names of the text columns.
        label_column: name of the label column, or None.
        loss: class name of the loss.
        loss_parameters: its parameters.
    """

    name: str
    rows: int
    text_columns: tuple[str, ...]
    label_column: str | None
    loss: str
    loss_parameters: Mapping[str, Any]


@dataclass(frozen=True)
class TrainingFacts:
    """How a model was trained.

    Attributes:
        datasets: what it was trained on.
        settings: every setting of the run by name.
        metrics: results of the last evaluation.
        evaluated: what was evaluated, such as "Semantic Similarity"; "" if nothing was.
        log: the log entries of the run.
    """

    datasets: tuple[DatasetFacts, ...]
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    evaluated: str
    log: tuple[Mapping[str, float], ...]


@dataclass(frozen=True)
class CardFacts:
    """What a model is.

    Attributes:
        model_name: the name the card shows, or None.
        base_model: name of the model it was made from, or None if not known.
        max_seq_length: longest text in tokens.
        dimension: size of an embedding.
        similarity: name of the similarity function.
        architecture: the modules, one a line.
        training: how it was trained, or None.
    """

    model_name: str | None
    base_model: str | None
    max_seq_length: int
    dimension: int
    similarity: str
    architecture: str
    training: TrainingFacts | None


def versions() -> dict[str, str]:
    """Versions of what made a model, by the names the format uses."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"minisbert": __version__}
    for key, package in (("transformers", "transformers"), ("pytorch", "torch")):
        try:
            found[key] = version(package)
        except PackageNotFoundError:
            found[key] = "unknown"
    return found
