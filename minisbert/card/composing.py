"""What is known of a model and its training to the facts of a card."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .citations import citations
from .facts import (
    CardFacts,
    DatasetFacts,
    Description,
    Evaluation,
    FrontMatter,
    IndexedMetric,
    IndexedResult,
    Link,
    LossFacts,
    Metric,
    ModelIndex,
    NamedDataset,
    Number,
    Usage,
)
from .logbook import training_logs, training_time
from .record import Evaluated, TrainedOn, TrainingFacts, versions
from .settings import hyperparameters, non_default

_LIBRARY = "https://sbert.net/docs/package_reference/sentence_transformer"
_TAGS = ("sentence-transformers", "sentence-similarity", "feature-extraction", "dense")
_SOURCES = (
    Link("Sentence Transformers Documentation", "https://sbert.net"),
    Link("Sentence Transformers on GitHub", "https://github.com/huggingface/sentence-transformers"),
    Link("Sentence Transformers on Hugging Face", "https://huggingface.co/models?library=sentence-transformers"),
)
_TEXTS = (
    "How do plants make sugar?",
    "Photosynthesis turns light, water and carbon dioxide into sugar.",
    "The last train leaves at ten.",
    "Roots take up water from the soil.",
)
_QUERY_COLUMNS = {"query", "question"}
_RETRIEVAL = "Information Retrieval"


@dataclass(frozen=True)
class ModelFacts:
    """What a model knows of itself.

    Attributes:
        name: what the card calls it, or None.
        base_model: name on the Hub of the model it was made from, or None.
        base_model_revision: commit of that.
        max_seq_length: longest text in tokens.
        dimension: size of an embedding.
        similarity: name of the similarity function.
        architecture: the modules, one a line.
        has_prompts: there is a prompt for queries or documents.
    """

    name: str | None
    base_model: str | None
    base_model_revision: str | None
    max_seq_length: int
    dimension: int
    similarity: str
    architecture: tuple[str, ...]
    has_prompts: bool


def compose(model: ModelFacts, training: TrainingFacts | None) -> CardFacts:
    """The facts of the card; the similarities of its example are not known yet."""
    made_from = f"SentenceTransformer based on {model.base_model}" if model.base_model else "SentenceTransformer"
    named = tuple(NamedDataset(one.name) for one in training.datasets if one.name) if training else ()
    untrained = CardFacts(
        title=model.name or made_from,
        front_matter=FrontMatter(tags=_TAGS, base_model=model.base_model),
        description=Description(
            dimension=model.dimension,
            max_seq_length=model.max_seq_length,
            similarity=model.similarity,
            base_model=model.base_model,
            base_model_revision=model.base_model_revision,
            modalities=("Text",),
            training_datasets=named,
        ),
        architecture=model.architecture,
        usage=_usage(model, training),
        sources=_SOURCES,
        versions=_versions(),
    )
    return untrained if training is None else _trained(untrained, training)


def _trained(card: CardFacts, training: TrainingFacts) -> CardFacts:
    outer, inner = [one.loss for one in training.datasets], [loss for d in training.datasets for loss in d.inner_losses]
    losses = tuple(dict.fromkeys([*outer, *inner]))
    primary = [one.primary for one in training.evaluations if one.primary is not None]
    return replace(
        card,
        front_matter=_front_matter(card, training, losses),
        evaluations=evaluations(training.evaluations),
        training_datasets=tuple(map(_dataset, training.datasets)),
        hyperparameters=hyperparameters(training.settings),
        non_default_hyperparameters=non_default(training.settings, training.defaults),
        logs=training_logs(
            training.log,
            log_every=training.settings["log_every"] if training.settings["replay"] else None,
            primary=primary,
            best_step=training.best_step,
        ),
        training_time=training_time(training.seconds, training.evaluation_seconds),
        citations=citations(losses),
    )


def _usage(model: ModelFacts, training: TrainingFacts | None) -> Usage:
    columns = {column for one in training.datasets for column in one.text_columns} if training else set()
    retrieval = any(one.description == _RETRIEVAL for one in training.evaluations) if training else False
    has_query = model.has_prompts or bool(_QUERY_COLUMNS & columns) or retrieval
    texts = (training.examples.texts if training else ()) or _TEXTS
    return Usage(model.name or "sentence_transformers_model_id", texts if has_query else texts[:3], has_query)


def _front_matter(card: CardFacts, training: TrainingFacts, losses: Sequence[str]) -> FrontMatter:
    rows = sum(dataset.rows for dataset in training.datasets)
    results = tuple(_indexed(one) for one in training.evaluations)
    return FrontMatter(
        tags=(*_TAGS, "generated_from_trainer", f"dataset_size:{rows}", *(f"loss:{loss}" for loss in losses)),
        base_model=card.description.base_model,
        widget=training.examples.widget,
        metrics=tuple(dict.fromkeys(name for one in training.evaluations for name in _metrics(one))),
        model_index=(ModelIndex(card.title, results),) if results else (),
    )


def _metrics(one: Evaluated) -> dict[str, float]:
    prefix = f"{one.name}_" if one.name else ""
    return {name.removeprefix(prefix): value for name, value in one.metrics.items()}


def _indexed(one: Evaluated) -> IndexedResult:
    metrics = tuple(
        IndexedMetric(name, value if value == value else None, name.replace("_", " ").title())
        for name, value in _metrics(one).items()
    )
    shown = one.name.replace("_", " ").replace("-", " ") or "Unknown"
    return IndexedResult(
        one.description.lower().replace(" ", "-"), one.description, shown, one.name or "unknown", metrics
    )


def evaluations(found: Sequence[Evaluated]) -> tuple[Evaluation, ...]:
    """One evaluation for all evaluators of a kind that have the same metrics and different names."""
    groups: list[list[Evaluated]] = []
    for one in found:
        for group in groups:
            if _alike(one, group[0]) and one.name not in [other.name for other in group]:
                group.append(one)
                break
        else:
            groups.append([one])
    return tuple(map(_evaluation, groups))


def _alike(a: Evaluated, b: Evaluated) -> bool:
    same = (a.evaluator, a.parameters, _metrics(a).keys()) == (b.evaluator, b.parameters, _metrics(b).keys())
    return same and bool(a.name and b.name)


def _evaluation(group: Sequence[Evaluated]) -> Evaluation:
    first = group[0]
    columns = [_metrics(one) for one in group]
    primary = (first.primary or "").removeprefix(f"{first.name}_" if first.name else "")
    return Evaluation(
        description=first.description,
        evaluator=first.evaluator,
        link=f"{_LIBRARY}/evaluation.html#sentence_transformers.sentence_transformer.evaluation.{first.evaluator}",
        datasets=tuple(one.name for one in group if one.name),
        parameters=dict(first.parameters) or None,
        metrics=tuple(
            Metric(name, tuple(_value(column[name]) for column in columns), name == primary) for name in columns[0]
        ),
    )


def _value(value: float) -> Number | str:
    return round(value, 4) if value == value else "nan"


def _dataset(one: TrainedOn) -> DatasetFacts:
    return DatasetFacts(
        name=one.name,
        loss=LossFacts(one.loss, f"{_LIBRARY}/losses.html#{one.loss.lower()}", dict(one.loss_parameters) or None),
        columns=one.columns,
        size=one.rows,
        statistics_rows=one.rows if one.statistics else None,
        statistics=one.statistics,
        samples=one.samples,
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    found = versions()
    return {
        "Python": platform.python_version(),
        "minisbert": found["minisbert"],
        "Transformers": found["transformers"],
        "PyTorch": found["pytorch"],
        "Tokenizers": version("tokenizers"),
    }
