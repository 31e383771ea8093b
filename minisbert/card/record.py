"""What a run of training hands over for the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import __version__
from .examples import Examples
from .facts import ColumnStatistics


@dataclass(frozen=True)
class TrainedOn:
    """What a model was trained on.

    Attributes:
        name: of the data set; "" for one without a name.
        rows: training rows.
        columns: names of all columns, in the order of the data.
        label_column: name of the label column, or None.
        loss: class name of the loss.
        loss_parameters: its parameters.
        inner_losses: class names of the losses it uses.
        statistics: each column in numbers.
        samples: the first rows, as a card shows them.
    """

    name: str
    rows: int
    columns: tuple[str, ...]
    label_column: str | None
    loss: str
    loss_parameters: Mapping[str, Any]
    inner_losses: tuple[str, ...] = ()
    statistics: tuple[ColumnStatistics, ...] = ()
    samples: tuple[tuple[str, ...], ...] = ()

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Names of the text columns."""
        return tuple(column for column in self.columns if column != self.label_column)


@dataclass(frozen=True)
class Evaluated:
    """What an evaluator found.

    Attributes:
        description: what was evaluated, such as "Semantic Similarity".
        evaluator: class name.
        name: of the evaluator, which stands before its metrics with "_"; may be empty.
        primary: full name of the primary metric.
        parameters: of the evaluator.
        metrics: results by full name.
    """

    description: str
    evaluator: str
    name: str
    primary: str | None
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class TrainingFacts:
    """How a model was trained.

    Attributes:
        datasets: what it was trained on.
        settings: every setting of the run by name.
        defaults: what the settings are where nobody sets them.
        metrics: results of the last evaluation.
        evaluations: the same, evaluator by evaluator.
        log: the log entries of the run.
        best_step: the step whose weights were kept, or None for the last.
        seconds: wall time, evaluations included.
        evaluation_seconds: how much of it went into evaluations.
        examples: texts to show.
    """

    datasets: tuple[TrainedOn, ...]
    settings: Mapping[str, Any]
    defaults: Mapping[str, Any]
    metrics: Mapping[str, float]
    evaluations: tuple[Evaluated, ...]
    log: tuple[Mapping[str, float], ...]
    best_step: int | None
    seconds: float
    evaluation_seconds: float
    examples: Examples


def evaluated(evaluator: Any, metrics: Mapping[str, float]) -> tuple[Evaluated, ...]:
    """The results of an evaluator, or of each of those it calls in turn.

    Of parts that give metrics of the same name only the last is told: the values of the others are lost.
    """
    parts = _parts(evaluator) if evaluator is not None else []
    left, found = dict(metrics), []
    for part in reversed(parts):
        names = list(metrics) if part is evaluator else _names(part, metrics, parts)
        own = {name: left.pop(name) for name in names if name in left}
        if own:
            config: dict[str, Any] = getattr(part, "get_config_dict", dict)()
            kind = type(part).__name__
            found.append(Evaluated(part.description, kind, part.name, part.primary_metric, config, own))
    return tuple(reversed(found))


def _parts(evaluator: Any) -> list[Any]:
    inner = getattr(evaluator, "evaluators", None)
    return [part for one in inner for part in _parts(one)] if inner else [evaluator]


def _names(part: Any, metrics: Mapping[str, float], parts: Sequence[Any]) -> Sequence[str]:
    """Names of the metrics of a part; one that does not tell them has those that begin with its name, or the rest."""
    told: Sequence[str] = getattr(part, "metric_names", ())
    if told:
        return told
    if part.name:
        return [name for name in metrics if name.startswith(f"{part.name}_")]
    others = tuple(f"{other.name}_" for other in parts if other.name)
    return [name for name in metrics if not name.startswith(others)]


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
