"""The facts of the card of a model, from the model and the record of its training."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from ..model import EmbeddingModel
from ..modules import Normalize, Pooling, Transformer
from ..training.record import Cell, ColumnRecord, DatasetRecord, EvaluationRecord, TrainingRecord
from ..version import versions
from .architecture import architecture, normalize_line, pooling_line, transformer_line
from .citations import citations
from .facts import (
    CardFacts,
    ColumnStatistics,
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
    WidgetExample,
)
from .logbook import training_logs, training_time
from .rendering import render
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
_QUERY_PROMPTS = ("query", "document", "passage", "corpus")
_RETRIEVAL = "Information Retrieval"
_SHOWN_CHARACTERS = 1000  # of a sample


def card_text(model: EmbeddingModel, training: TrainingRecord | None, *, name: str | None = None) -> str:
    """README.md of a model.

    Args:
        model: the model.
        training: the record of its training, or None.
        name: the name the card shows.
    """
    return render(compose(model, training, name=name))


def compose(model: EmbeddingModel, training: TrainingRecord | None, *, name: str | None = None) -> CardFacts:
    """The facts of the card of a model.

    Args:
        model: the model.
        training: the record of its training, or None.
        name: the name the card shows.
    """
    named = tuple(NamedDataset(one.name) for one in training.datasets if one.name) if training else ()
    untrained = CardFacts(
        title=name
        or (f"SentenceTransformer based on {model.base_model}" if model.base_model else "SentenceTransformer"),
        front_matter=FrontMatter(tags=_TAGS, base_model=model.base_model),
        description=Description(
            dimension=model.get_sentence_embedding_dimension(),
            max_seq_length=model.max_seq_length,
            similarity=model.similarity_fn_name,
            base_model=model.base_model,
            base_model_revision=model.base_model_revision,
            modalities=("Text",),
            training_datasets=named,
        ),
        architecture=architecture([_module(module) for module in model]),
        usage=_usage(model, training, name),
        sources=_SOURCES,
        versions=_versions(),
    )
    return untrained if training is None else _trained(untrained, training)


def _module(module: nn.Module) -> str:
    if isinstance(module, Transformer):
        return transformer_line(module.config)
    if isinstance(module, Pooling):
        return pooling_line(module.embedding_dimension, module.pooling_mode, include_prompt=module.include_prompt)
    if isinstance(module, Normalize):
        return normalize_line()
    return f"{type(module).__name__}({module.extra_repr()})"


def _trained(card: CardFacts, training: TrainingRecord) -> CardFacts:
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


def _usage(model: EmbeddingModel, training: TrainingRecord | None, name: str | None) -> Usage:
    columns = {column for one in training.datasets for column in one.text_columns} if training else set()
    retrieval = any(one.description == _RETRIEVAL for one in training.evaluations) if training else False
    has_query = any(map(model.prompts.get, _QUERY_PROMPTS)) or bool(_QUERY_COLUMNS & columns) or retrieval
    texts = (training.examples.texts if training else ()) or _TEXTS
    texts = texts if has_query else texts[:3]
    similarities = _similarities(model, list(texts), has_query=has_query) if training else None
    return Usage(name or "sentence_transformers_model_id", texts, has_query, similarities)


def _similarities(model: EmbeddingModel, texts: list[str], *, has_query: bool) -> tuple[tuple[float, ...], ...] | None:
    """The similarities the example prints, or None where the model cannot embed here, as with too little memory."""
    try:
        with model.quietly():
            queries = model.encode_query(texts[:1]) if has_query else model.encode(texts)
            others = model.encode_document(texts[1:]) if has_query else queries
        found: list[list[float]] = model.similarity(queries, others).tolist()
    except (RuntimeError, ValueError):  # torch's and our own; a card must not keep a model from being saved
        return None
    return tuple(map(tuple, found))


def _front_matter(card: CardFacts, training: TrainingRecord, losses: Sequence[str]) -> FrontMatter:
    rows = sum(dataset.rows for dataset in training.datasets)
    results = tuple(_indexed(one) for one in training.evaluations)
    return FrontMatter(
        tags=(*_TAGS, "generated_from_trainer", f"dataset_size:{rows}", *(f"loss:{loss}" for loss in losses)),
        base_model=card.description.base_model,
        widget=tuple(WidgetExample(*comparison) for comparison in training.examples.comparisons),
        metrics=tuple(dict.fromkeys(name for one in training.evaluations for name in _metrics(one))),
        model_index=(ModelIndex(card.title, results),) if results else (),
    )


def _metrics(one: EvaluationRecord) -> dict[str, float]:
    prefix = f"{one.name}_" if one.name else ""
    return {name.removeprefix(prefix): value for name, value in one.metrics.items()}


def _indexed(one: EvaluationRecord) -> IndexedResult:
    metrics = tuple(
        IndexedMetric(name, value if value == value else None, name.replace("_", " ").title())
        for name, value in _metrics(one).items()
    )
    shown = one.name.replace("_", " ").replace("-", " ") or "Unknown"
    return IndexedResult(
        one.description.lower().replace(" ", "-"), one.description, shown, one.name or "unknown", metrics
    )


def evaluations(found: Sequence[EvaluationRecord]) -> tuple[Evaluation, ...]:
    """One evaluation for all evaluators of a kind that have the same metrics and different names."""
    groups: list[list[EvaluationRecord]] = []
    for one in found:
        for group in groups:
            if _alike(one, group[0]) and one.name not in [other.name for other in group]:
                group.append(one)
                break
        else:
            groups.append([one])
    return tuple(map(_evaluation, groups))


def _alike(a: EvaluationRecord, b: EvaluationRecord) -> bool:
    same = (a.evaluator, a.parameters, _metrics(a).keys()) == (b.evaluator, b.parameters, _metrics(b).keys())
    return same and bool(a.name and b.name)


def _evaluation(group: Sequence[EvaluationRecord]) -> Evaluation:
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


def _dataset(one: DatasetRecord) -> DatasetFacts:
    return DatasetFacts(
        name=one.name,
        loss=LossFacts(one.loss, f"{_LIBRARY}/losses.html#{one.loss.lower()}", dict(one.loss_parameters) or None),
        columns=one.columns,
        size=one.rows,
        statistics_rows=one.rows if one.statistics else None,
        statistics=tuple(map(column_statistics, one.statistics)),
        samples=tuple(tuple(map(_sample, row)) for row in one.samples),
    )


def column_statistics(column: ColumnRecord) -> ColumnStatistics:
    """A column in numbers, as a card prints them."""
    if column.range is None:
        total = sum(column.counts.values())
        about = "~" if len(column.counts) > 1 else ""
        details = [(str(label), f"{about}{count / total:.2%}") for label, count in column.counts.items()]
    else:
        unit = " tokens" if column.type == "string" else ""
        values = zip(("min", "mean", "max"), column.range, strict=True)
        details = [(name, f"{round(value, 2)}{unit}") for name, value in values]
    return ColumnStatistics(column.name, column.type, "text" if column.type == "string" else "", tuple(details))


def _sample(cell: Cell) -> str:
    text = str(cell)
    cut = f"{text[:_SHOWN_CHARACTERS]}..." if len(text) > _SHOWN_CHARACTERS else text
    return cut.replace("\r\n", "\n").replace("\r", "\n")


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
