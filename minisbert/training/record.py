"""The record of a training run, kept on the model for whoever describes it, such as its model card."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..data.labels import Labels, LabelType
from ..data.roles import TrainingRows
from ..losses import Loss
from .config import TrainingConfig
from .history import TrainingHistory
from .selection import loss_metric

Cell: TypeAlias = str | bool | int | float

_SAMPLES = 3  # first rows of a data set to keep
_COMPARISONS, _TEXTS = 5, 4  # comparisons to choose for the widget on the Hub, and texts in each
_CANDIDATES = 1000  # rows of which the shortest are chosen


@dataclass(frozen=True)
class ColumnRecord:
    """A column of the training rows in numbers.

    Attributes:
        name: of the column.
        type: "string" for texts; what the labels were given as for labels.
        range: smallest, mean and largest number of tokens, float label or length of lists; None for other labels.
        counts: occurrences of each int or bool label; empty for other columns.
    """

    name: str
    type: Literal["string"] | LabelType
    range: tuple[float, float, float] | None = None
    counts: Mapping[Cell, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetRecord:
    """A data set of a run, and the loss it was used with.

    Attributes:
        name: of the data set; "" for one without a name.
        rows: number of rows.
        columns: names of all columns, in the order of the data.
        label_column: name of the label column, or None.
        loss: class name of the loss.
        loss_parameters: its parameters.
        inner_losses: class names of the losses it wraps.
        papers: class name of each of these losses to the name of its paper.
        statistics: each column in numbers.
        samples: the first rows.
        counted: number of first rows that the statistics cover.
    """

    name: str
    rows: int
    columns: tuple[str, ...]
    label_column: str | None
    loss: str
    loss_parameters: Mapping[str, Any]
    inner_losses: tuple[str, ...] = ()
    papers: Mapping[str, str] = field(default_factory=dict)
    statistics: tuple[ColumnRecord, ...] = ()
    samples: tuple[tuple[Cell, ...], ...] = ()
    counted: int | None = None

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Names of the text columns."""
        return tuple(column for column in self.columns if column != self.label_column)


@dataclass(frozen=True)
class EvaluationRecord:
    """The results of one evaluator.

    Attributes:
        description: of the task, such as "Semantic Similarity".
        evaluator: class name.
        name: of the evaluator, which prefixes its metrics with "_"; may be empty.
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
class Examples:
    """Short texts of the rows to evaluate on, or else of those to train on.

    Attributes:
        comparisons: a text and the texts to compare it with, for each of up to five rows.
        texts: up to four texts of one row; empty where there were too few rows.
    """

    comparisons: tuple[tuple[str, tuple[str, ...]], ...] = ()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingRecord:
    """The data, settings, results and log of a training run.

    Attributes:
        datasets: the training data.
        eval_datasets: the data that the loss was evaluated on.
        settings: every setting of the run by name.
        defaults: the default of every setting.
        metrics: results of the last evaluation, or of the best where its weights were kept.
        evaluations: the same, evaluator by evaluator.
        log: the log entries of the run.
        best_step: the step whose weights were kept, or None for the last.
        seconds: wall time, evaluations included.
        evaluation_seconds: the part of it spent on evaluations.
        examples: texts to show.
    """

    datasets: tuple[DatasetRecord, ...]
    eval_datasets: tuple[DatasetRecord, ...]
    settings: Mapping[str, Any]
    defaults: Mapping[str, Any]
    metrics: Mapping[str, float]
    evaluations: tuple[EvaluationRecord, ...]
    log: tuple[Mapping[str, float], ...]
    best_step: int | None
    seconds: float
    evaluation_seconds: float
    examples: Examples


def record_run(
    config: TrainingConfig,
    datasets: Sequence[tuple[str, TrainingRows, Loss, NDArray[np.int64]]],
    eval_datasets: Sequence[tuple[str, TrainingRows, Loss, NDArray[np.int64]]],
    evaluator: Any,
    history: TrainingHistory,
) -> TrainingRecord:
    """Record a finished run.

    Args:
        config: settings of the run.
        datasets: name, rows, loss, and tokens of each text, (columns, rows), of each data set.
        eval_datasets: the same of those that the loss was evaluated on.
        evaluator: of the run, or None.
        history: of the run.
    """
    losses = {*(loss_metric(name) for name, *_ in eval_datasets), *history.terms}
    evaluations = [entry for entry in history.entries if any(name.startswith("eval_") for name in entry)]
    best_step = history.best_step if config.keep_best else None
    if best_step is not None:
        evaluations = [entry for entry in evaluations if entry["step"] == best_step]
    final = evaluations[-1] if evaluations else {}
    metrics = {name.removeprefix("eval_"): value for name, value in final.items() if name.startswith("eval_")}
    return TrainingRecord(
        datasets=tuple(record_dataset(*dataset) for dataset in datasets),
        eval_datasets=tuple(record_dataset(*dataset) for dataset in eval_datasets),
        settings=asdict(config),
        defaults=asdict(TrainingConfig()),
        metrics=metrics,
        evaluations=record_evaluations(evaluator, {key: metrics[key] for key in metrics if key not in losses}),
        log=tuple(history.entries),
        best_step=best_step,
        seconds=history.seconds,
        evaluation_seconds=history.evaluation_seconds,
        examples=choose_examples(
            {name: shown_texts(rows, loss) for name, rows, loss, _ in eval_datasets or datasets}, seed=config.seed
        ),
    )


# ---- data sets ------------------------------------------------------------------------------------------------------


def record_dataset(name: str, rows: TrainingRows, loss: Loss, token_counts: NDArray[np.int64]) -> DatasetRecord:
    """Describe a data set and its loss.

    Args:
        name: of the data set.
        rows: the rows; of those in a token store the first are shown.
        loss: what they were trained with.
        token_counts: tokens of each text, (columns, rows).
    """
    total, rows = len(rows), rows.head
    statistics = {
        column: ColumnRecord(column, "string", (counts.min().item(), counts.mean().item(), counts.max().item()))
        for column, counts in zip(rows.texts, token_counts, strict=True)
    }
    samples: dict[str, Sequence[Cell]] = {column: texts[:_SAMPLES] for column, texts in rows.texts.items()}
    if rows.labels is not None and rows.label_name is not None:
        column, classes = rows.label_name, rows.classes
        statistics[column] = label_statistics(column, rows.labels, rows.label_type, classes=classes)
        samples[column] = [_typed(label, rows.label_type, classes) for label in rows.labels[:_SAMPLES]]
    return DatasetRecord(
        name=shown_name(name),
        rows=total,
        columns=rows.columns,
        label_column=rows.label_name,
        loss=type(loss).__name__,
        loss_parameters={key: _plain(value) for key, value in loss.get_config_dict().items()},
        inner_losses=tuple(type(inner).__name__ for inner in _inner_losses(loss)),
        papers={type(one).__name__: one.paper for one in (loss, *_inner_losses(loss))},
        statistics=tuple(statistics[column] for column in rows.columns),
        samples=tuple(zip(*(samples[column] for column in rows.columns), strict=True)),
        counted=len(rows),
    )


def label_statistics(column: str, labels: Labels, kind: LabelType, *, classes: Sequence[str] = ()) -> ColumnRecord:
    """The range of float labels, the length of lists, or the number of times each other label occurs."""
    if isinstance(labels, np.ndarray):
        return ColumnRecord(column, kind, (labels.shape[1],) * 3)
    if kind == "float":
        values = np.asarray(labels, dtype=np.float64)
        return ColumnRecord(column, kind, (values.min().item(), values.mean().item(), values.max().item()))
    counts = Counter(labels)
    return ColumnRecord(column, kind, counts={_typed(label, kind, classes): counts[label] for label in sorted(counts)})


def shown_name(name: str) -> str:
    """A data set's name, or "" for one that `fit` made up."""
    return "" if re.fullmatch(r"_dataset_\d+", name) else name


def _typed(label: float | NDArray[np.float32], kind: LabelType, classes: Sequence[str] = ()) -> Cell:
    """A label as it was given, the number of a class with its name; a list as its text, in the digits of float32."""
    if isinstance(label, np.ndarray):
        return str(_digits(label))
    if classes:
        return f"{int(label)} ({classes[int(label)]})"
    types: dict[LabelType, type[Cell]] = {"float": float, "int": int, "bool": bool, "list": str}
    return types[kind](label)


def _digits(values: NDArray[np.float32]) -> list[Any]:
    return [_digits(value) if value.ndim else float(str(value)) for value in values]


def _inner_losses(loss: Loss) -> tuple[Loss, ...]:
    inner = getattr(loss, "loss", None)
    return (inner, *_inner_losses(inner)) if isinstance(inner, Loss) else ()


def _plain(value: Any) -> Any:
    """A value that JSON can hold."""
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, nn.Module):
        return type(value).__name__
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def shown_texts(rows: TrainingRows, loss: Loss) -> Mapping[str, Sequence[str]]:
    """Return the columns whose texts are worth showing together: not a damaged text, nor the same text twice."""
    columns = dict(rows.texts)
    if "tokens" in loss.forms:
        return {
            name: texts for (name, texts), form in zip(columns.items(), loss.forms, strict=True) if form == "tokens"
        }
    if loss.labels_equal_texts:
        name = list(columns)[-1]
        return {name: columns[name]}
    return columns


def choose_examples(datasets: Mapping[str, Mapping[str, Sequence[str]]], *, seed: int) -> Examples:
    """Choose short rows, with the draws of the reference's version 6.2 for the same seed.

    Args:
        datasets: text columns by name of the data set.
        seed: of the draws.
    """
    draw = random.Random(seed)  # noqa: S311
    comparisons: list[tuple[str, tuple[str, ...]]] = []
    shown: list[str] = []
    for name, wanted in Counter(draw.choices(list(datasets), k=_COMPARISONS)).items():
        columns = list(datasets[name].values())
        size = len(columns[0])
        picked = draw.sample(range(size), k=min(_CANDIDATES, size))
        rows = [[column[row] for column in columns] for row in picked]
        rows = sorted((row for row in rows if all(row)), key=lambda row: sum(map(len, row)))
        # The second text of a row is taken, because the first can be a query.
        fillers = [row[min(1, len(row) - 1)] for row in reversed(rows[wanted:])]
        for row in rows[:wanted]:
            texts = list(row)
            while len(texts) < _TEXTS and fillers:
                texts.append(fillers.pop())
            if len(texts) >= _TEXTS:
                comparisons.append((texts[0], tuple(draw.sample(texts[1:], k=len(texts) - 1))))
                shown = texts[:_TEXTS]
    return Examples(tuple(comparisons), tuple(shown))


# ---- evaluations ----------------------------------------------------------------------------------------------------


def record_evaluations(evaluator: Any, metrics: Mapping[str, float]) -> tuple[EvaluationRecord, ...]:
    """The results of an evaluator, or of each of those it calls in turn.

    Where several give metrics of one name, only the last is recorded: the values of the others are lost.
    """
    parts = _parts(evaluator) if evaluator is not None else []
    left, found = dict(metrics), []
    for part in reversed(parts):
        names = list(metrics) if part is evaluator else _metric_names(part, metrics, parts)
        own = {name: left.pop(name) for name in names if name in left}
        if own:
            config: dict[str, Any] = getattr(part, "get_config_dict", dict)()
            kind, primary = type(part).__name__, getattr(part, "primary_metric", None)
            description = getattr(part, "description", "") or kind  # an evaluator of another library may have none
            found.append(EvaluationRecord(description, kind, _name(part), primary, config, own))
    return tuple(reversed(found))


def _parts(evaluator: Any) -> list[Any]:
    inner = getattr(evaluator, "evaluators", None)
    return [part for one in inner for part in _parts(one)] if inner else [evaluator]


def _name(part: Any) -> str:
    return getattr(part, "name", None) or ""


def _metric_names(part: Any, metrics: Mapping[str, float], parts: Sequence[Any]) -> Sequence[str]:
    """Names of the metrics of a part: those it states, else those with its name as prefix, else the rest."""
    stated: Sequence[str] = getattr(part, "metric_names", ())
    if stated:
        return stated
    if prefix := _name(part):
        return [name for name in metrics if name.startswith(f"{prefix}_")]
    others = tuple(f"{_name(other)}_" for other in parts if _name(other))
    return [name for name in metrics if not name.startswith(others)]
