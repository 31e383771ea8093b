"""The facts of a model card, as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeAlias

from ..errors import InputError

Number: TypeAlias = int | float
Parameters: TypeAlias = Mapping[str, Any] | str
"""Parameters by name, or the printed text if it is not JSON."""


@dataclass(frozen=True)
class Link:
    """A title and its target."""

    title: str
    url: str


@dataclass(frozen=True)
class WidgetExample:
    """A sentence, and sentences to compare it with."""

    source_sentence: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class IndexedMetric:
    """A result in the front matter; `value` is None for NaN."""

    type: str
    value: Number | None
    name: str


@dataclass(frozen=True)
class IndexedResult:
    """The results of one evaluation in the front matter."""

    task_type: str
    task_name: str
    dataset_name: str
    dataset_type: str
    metrics: tuple[IndexedMetric, ...]


@dataclass(frozen=True)
class ModelIndex:
    """The results of a model in the front matter."""

    name: str
    results: tuple[IndexedResult, ...]


@dataclass(frozen=True)
class Emissions:
    """The cost of training: grams of CO2, kWh, GB of memory."""

    emissions: Number
    energy_consumed: Number
    source: str
    training_type: str
    on_cloud: bool
    cpu_model: str
    ram_total_size: Number
    hours_used: Number | None = None
    hardware_used: str | None = None


@dataclass(frozen=True)
class FrontMatter:
    """The YAML at the head of a card, for the Hub."""

    language: tuple[str, ...] = ()
    license: str | None = None
    tags: tuple[str, ...] = ()
    base_model: str | tuple[str, ...] | None = None
    base_model_relation: str | None = None
    widget: tuple[WidgetExample, ...] = ()
    datasets: tuple[str, ...] = ()
    pipeline_tag: str = "sentence-similarity"
    library_name: str = "sentence-transformers"
    metrics: tuple[str, ...] = ()
    model_index: tuple[ModelIndex, ...] = ()
    co2_eq_emissions: Emissions | None = None


@dataclass(frozen=True)
class NamedDataset:
    """A data set by name, with its id on the Hub if it has one."""

    name: str
    id: str | None = None


@dataclass(frozen=True)
class Description:
    """The model itself.

    Attributes:
        base_model: name of the model it is based on.
        base_model_revision: commit of that model.
        max_seq_length: longest text in tokens; infinite if unlimited.
        max_query_length: the same for queries only.
        max_document_length: the same for documents only.
        dimension: size of an embedding.
        similarity: "cosine", "dot", "euclidean" or "manhattan"; others as printed.
        modalities: kinds of input, such as "Text"; empty if the card does not say.
        training_datasets: those with a name.
        language: codes, such as "en".
        license: name of the license.
    """

    dimension: int | None
    max_seq_length: float | None
    similarity: str = "cosine"
    base_model: str | None = None
    base_model_revision: str | None = None
    max_query_length: int | None = None
    max_document_length: int | None = None
    modalities: tuple[str, ...] = ()
    training_datasets: tuple[NamedDataset, ...] = ()
    language: tuple[str, ...] = ()
    license: str | None = None


@dataclass(frozen=True)
class Usage:
    """The example of how to use the model.

    Attributes:
        model_id: name or folder that the example loads.
        sentences: the texts; with a query, the first is the query and the others are documents.
        has_query: the first text is a query.
        similarities: printed similarities, (texts, texts) or (1, documents); None if only their shape is shown.
    """

    model_id: str
    sentences: tuple[str, ...]
    has_query: bool = False
    similarities: tuple[tuple[float, ...], ...] | None = None


@dataclass(frozen=True)
class Metric:
    """A row of an evaluation: one value for each data set, as text if it is not a number."""

    name: str
    values: tuple[Number | str, ...]
    primary: bool = False


@dataclass(frozen=True)
class Evaluation:
    """An evaluation, or several of the same kind on several data sets.

    Attributes:
        description: such as "Semantic Similarity".
        evaluator: class name.
        link: documentation of the class, or None.
        datasets: names of the data sets; empty for one without a name.
        parameters: of the evaluator.
        metrics: the results.
    """

    description: str
    evaluator: str
    link: str | None
    datasets: tuple[str, ...]
    parameters: Parameters | None
    metrics: tuple[Metric, ...]


@dataclass(frozen=True)
class ColumnStatistics:
    """A column in numbers.

    Attributes:
        column: its name.
        type: "string", "int", "float", "bool", "list", ...
        modality: such as "text"; None if the card does not say.
        details: name and value as printed, such as ("mean", "57.27 tokens") or ("0", "~25.00%").
    """

    column: str
    type: str
    modality: str | None
    details: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class LossFacts:
    """A loss: class name, documentation, parameters."""

    name: str
    link: str | None = None
    parameters: Parameters | None = None


@dataclass(frozen=True)
class DatasetFacts:
    """A data set of a run.

    Attributes:
        name: "" for one without a name.
        loss: the loss it was used with.
        columns: their names.
        size: number of rows, or None for a stream.
        id: name on the Hub.
        revision: commit on the Hub.
        statistics_rows: number of first rows that the statistics cover.
        statistics: of each column; may be empty.
        samples: the cells of the first rows, long ones cut.
    """

    name: str
    loss: LossFacts
    columns: tuple[str, ...]
    size: int | None = None
    id: str | None = None
    revision: str | None = None
    statistics_rows: int | None = None
    statistics: tuple[ColumnStatistics, ...] = ()
    samples: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class TrainingLogs:
    """The log of a run: cells as printed, "-" if a row has no such value.

    Attributes:
        columns: names, first "Epoch" and "Step".
        rows: one cell for each column.
        bold_rows: indices of the rows of the saved checkpoint.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bold_rows: tuple[int, ...] = ()

    def values(self, column: str) -> tuple[float | None, ...]:
        """A column in numbers, None for "-".

        Raises:
            InputError: there is no such column, or it does not hold numbers.
        """
        if column not in self.columns:
            raise InputError(f"got training logs without the column {column!r}; expected one of {list(self.columns)}")
        index = self.columns.index(column)
        try:
            return tuple(None if row[index] == "-" else float(row[index]) for row in self.rows)
        except ValueError as error:
            raise InputError(f"got training logs with the column {column!r} ({error}); expected numbers") from None


@dataclass(frozen=True)
class TrainingTime:
    """Durations as printed, such as "23.1 minutes"."""

    training: str
    evaluation: str | None = None
    total: str | None = None


@dataclass(frozen=True)
class Picture:
    """An image beside the card.

    Attributes:
        title: of the image.
        file: its name in the folder of the card.

    Raises:
        InputError: `file` is not the name of a file in that folder.
    """

    title: str
    file: str

    def __post_init__(self) -> None:
        if not is_file_name(self.file):
            raise InputError(
                f"got {self.file!r} as the file of a picture; expected the name of a file beside the card, such as "
                f"'training.png': put it there"
            )


def is_file_name(text: str) -> bool:
    """Return True if `text` is the name of a file, not a path."""
    return text not in ("", ".", "..") and not any(mark in text for mark in "/\\:\0")


@dataclass(frozen=True)
class Origin:
    """The making of a model out of others.

    Attributes:
        kind: "Merge" or "Distillation".
        facts: lines by name, such as "Method".
    """

    kind: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Citation:
    """A paper to cite, and the losses it is for; the first is for "Sentence Transformers"."""

    names: tuple[str, ...]
    bibtex: str


@dataclass(frozen=True)
class CardFacts:
    """Everything a model card states.

    Attributes:
        title: heading of the card.
        front_matter: the YAML.
        description: the model itself.
        architecture: the printed modules, line by line.
        usage: an example.
        sources: links to the library.
        origin: the models it was merged or distilled from, or None.
        evaluations: results.
        training_datasets: the training data.
        evaluation_datasets: data that the loss was evaluated on.
        non_default_hyperparameters: settings that were changed: values as printed by name.
        hyperparameters: all settings: values as printed by name.
        logs: the log of the run.
        training_time: durations.
        pictures: images of the run.
        versions: of the software, as printed by name.
        resources: links to further reading.
        citations: papers to cite.
    """

    title: str
    front_matter: FrontMatter
    description: Description
    architecture: tuple[str, ...]
    usage: Usage | None
    sources: tuple[Link, ...] = ()
    origin: Origin | None = None
    evaluations: tuple[Evaluation, ...] = ()
    training_datasets: tuple[DatasetFacts, ...] = ()
    evaluation_datasets: tuple[DatasetFacts, ...] = ()
    non_default_hyperparameters: Mapping[str, str] = field(default_factory=dict)
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    logs: TrainingLogs | None = None
    training_time: TrainingTime | None = None
    pictures: tuple[Picture, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    resources: tuple[Link, ...] = ()
    citations: tuple[Citation, ...] = ()


def differences(one: CardFacts, other: CardFacts, *, tolerance: float = 1e-6) -> tuple[str, ...]:
    """The facts that differ, as "path: value of one | value of the other".

    Args:
        one: a card's facts.
        other: another's.
        tolerance: largest difference of two numbers that count as equal.
    """
    return tuple(_differences(one, other, "", tolerance))


def _differences(one: Any, other: Any, path: str, tolerance: float) -> Iterator[str]:
    if is_dataclass(one) and type(one) is type(other):
        for name in (field.name for field in fields(one)):
            yield from _differences(getattr(one, name), getattr(other, name), f"{path}.{name}".lstrip("."), tolerance)
    elif isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            yield from _differences(one.get(key), other.get(key), f"{path}[{key}]", tolerance)
    elif isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)) and len(one) == len(other):
        for index, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            yield from _differences(mine, theirs, f"{path}[{index}]", tolerance)
    elif isinstance(one, float) and isinstance(other, float):
        if not abs(one - other) <= tolerance and not (one != one and other != other):
            yield f"{path}: {one} | {other}"
    elif one != other:
        yield f"{path}: {one!r} | {other!r}"
