"""The facts of the card of a model, from the model and the record of its training."""

from __future__ import annotations

import platform
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from ..model import EmbeddingModel
from ..modules import Normalize, Pooling, Transformer
from ..modules.transformer import UNLIMITED
from ..training.record import Cell, ColumnRecord, DatasetRecord, EvaluationRecord, TrainingRecord
from ..training.selection import loss_metric
from ..version import versions
from .facts import (
    CardFacts,
    Citation,
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
    Origin,
    TrainingLogs,
    TrainingTime,
    Usage,
    WidgetExample,
)
from .rendering import render

_LIBRARY = "https://sbert.net/docs/package_reference/sentence_transformer"
_EVALUATORS = f"{_LIBRARY}/evaluation.html#sentence_transformers.sentence_transformer.evaluation"
_NOT_OF_THE_REFERENCE = ("FunctionEvaluator", "TeacherEvaluator")
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
_MODALITIES = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
_SHOWN_CHARACTERS = 1000  # of a sample
_TRAINING_LOSS = "Training Loss"


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
    origin = model.origin if isinstance(model.origin, Origin) else None
    based_on = f" based on {model.base_model}" if model.base_model else ""
    named = tuple(NamedDataset(one.name) for one in training.datasets if one.name) if training else ()
    untrained = CardFacts(
        title=name or f"SentenceTransformer{based_on}",
        front_matter=FrontMatter(
            tags=_TAGS,
            base_model=model.base_model,
            base_model_relation="finetune" if origin and model.base_model else None,
        ),
        description=Description(
            dimension=model.get_sentence_embedding_dimension(),
            max_seq_length=float("inf") if model.max_seq_length == UNLIMITED else model.max_seq_length,
            similarity=model.similarity_fn_name,
            base_model=model.base_model,
            base_model_revision=model.base_model_revision,
            modalities=("Text",),
            training_datasets=named,
        ),
        architecture=("SentenceTransformer(", *(f"  ({i}): {_printed(m)}" for i, m in enumerate(model)), ")"),
        usage=_usage(model, training, name),
        origin=origin,
        sources=_SOURCES,
        versions=_versions(),
    )
    return untrained if training is None else _trained(untrained, training)


# ---- the model ------------------------------------------------------------------------------------------------------


def _printed(module: nn.Module) -> str:
    """A module as version 6 of the reference prints it."""
    if isinstance(module, Transformer):
        config = module.config
        named = (config.get("architectures") or [f"{str(config.get('model_type', '')).title()}Model"])[0]
        settings: dict[str, Any] = {
            "transformer_task": "feature-extraction",
            "modality_config": _MODALITIES,
            "module_output_name": "token_embeddings",
            "architecture": re.sub(r"(For[A-Z]\w+|LMHeadModel)$", "Model", named),
        }
    elif isinstance(module, Pooling):
        modes = module.pooling_mode
        settings = {
            "embedding_dimension": module.embedding_dimension,
            "pooling_mode": modes[0] if len(modes) == 1 else list(modes),
            "include_prompt": module.include_prompt,
        }
    elif isinstance(module, Normalize):
        settings = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    else:
        return f"{type(module).__name__}({module.extra_repr()})"
    return f"{type(module).__name__}({settings})"


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


def _versions() -> dict[str, str]:
    found = versions()
    return {
        "Python": platform.python_version(),
        "minisbert": found["minisbert"],
        "Transformers": found["transformers"],
        "PyTorch": found["pytorch"],
        "Tokenizers": version("tokenizers"),
    }


# ---- its training ---------------------------------------------------------------------------------------------------


def _trained(card: CardFacts, training: TrainingRecord) -> CardFacts:
    data = [*training.datasets, *training.eval_datasets]
    inner = [loss for one in data for loss in one.inner_losses]
    losses = tuple(dict.fromkeys([*(one.loss for one in data), *inner]))
    usual, used = hyperparameters(training.defaults), hyperparameters(training.settings)
    return replace(
        card,
        front_matter=_front_matter(card, training, losses),
        evaluations=evaluations(training.evaluations),
        training_datasets=tuple(map(_dataset, training.datasets)),
        evaluation_datasets=tuple(map(_dataset, training.eval_datasets)),
        hyperparameters=used,
        non_default_hyperparameters={name: value for name, value in used.items() if usual.get(name) != value},
        logs=training_logs(
            training.log,
            log_every=training.settings["log_every"] if training.settings["replay"] else None,
            primary=[one.primary for one in training.evaluations if one.primary is not None],
            eval_datasets=[one.name for one in training.eval_datasets],
            best_step=training.best_step,
        ),
        training_time=training_time(training.seconds, training.evaluation_seconds),
        citations=citations(losses, {name: paper for one in training.datasets for name, paper in one.papers.items()}),
    )


def _front_matter(card: CardFacts, training: TrainingRecord, losses: Sequence[str]) -> FrontMatter:
    rows = sum(dataset.rows for dataset in training.datasets)
    results = tuple(map(_indexed, training.evaluations))
    return replace(
        card.front_matter,
        tags=(*_TAGS, "generated_from_trainer", f"dataset_size:{rows}", *(f"loss:{loss}" for loss in losses)),
        widget=tuple(WidgetExample(*comparison) for comparison in training.examples.comparisons),
        metrics=tuple(dict.fromkeys(name for one in training.evaluations for name in _metrics(one))),
        model_index=(ModelIndex(card.title, results),) if results else (),
    )


def _metrics(one: EvaluationRecord) -> dict[str, float]:
    """The results by name, without the prefix of the evaluator."""
    return {_unprefixed(one, name): value for name, value in one.metrics.items()}


def _unprefixed(one: EvaluationRecord, metric: str) -> str:
    return metric.removeprefix(f"{one.name}_") if one.name else metric


def _indexed(one: EvaluationRecord) -> IndexedResult:
    metrics = tuple(
        IndexedMetric(name, value if value == value else None, name.replace("_", " ").title())
        for name, value in _metrics(one).items()
    )
    shown = one.name.replace("_", " ").replace("-", " ") or "Unknown"
    task = one.description.lower().replace(" ", "-")
    return IndexedResult(task, one.description, shown, one.name or "unknown", metrics)


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
    first, columns = group[0], list(map(_metrics, group))
    primary = _unprefixed(first, first.primary or "")
    values = {name: [column[name] for column in columns] for name in columns[0]}
    return Evaluation(
        description=first.description,
        evaluator=first.evaluator,
        link=None if first.evaluator in _NOT_OF_THE_REFERENCE else f"{_EVALUATORS}.{first.evaluator}",
        datasets=tuple(one.name for one in group if one.name),
        parameters=dict(first.parameters) or None,
        metrics=tuple(
            Metric(name, tuple(round(value, 4) if value == value else "nan" for value in row), name == primary)
            for name, row in values.items()
        ),
    )


def _dataset(one: DatasetRecord) -> DatasetFacts:
    return DatasetFacts(
        name=one.name,
        loss=LossFacts(one.loss, f"{_LIBRARY}/losses.html#{one.loss.lower()}", dict(one.loss_parameters) or None),
        columns=one.columns,
        size=one.rows,
        statistics_rows=(one.counted or one.rows) if one.statistics else None,
        statistics=tuple(map(column_statistics, one.statistics)),
        samples=tuple(tuple(map(_sample, row)) for row in one.samples),
    )


def column_statistics(column: ColumnRecord) -> ColumnStatistics:
    """A column in numbers, as a card prints them."""
    if column.type == "list" and column.range is not None:
        details = [("size", f"{column.range[0]} elements")]
    elif column.range is None:
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


def hyperparameters(settings: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a `TrainingConfig` as cards list them: those that transformers has too, under its names, then `replay`.

    When to log, evaluate and save is not listed.
    """
    values = {
        "per_device_train_batch_size": settings["batch_size"],
        "per_device_eval_batch_size": settings["eval_batch_size"],
        "num_train_epochs": settings["epochs"],
        "max_steps": settings["max_steps"] or -1,
        "learning_rate": float(settings["learning_rate"]),
        "lr_scheduler_type": settings["lr_scheduler_type"],
        "lr_scheduler_kwargs": settings["lr_scheduler_kwargs"] or "None",
        "warmup_steps": settings["warmup_steps"],
        "learning_rate_mapping": settings["learning_rate_mapping"] or {},
        "freeze": list(settings["freeze"]) or None,
        "optim": "adamw_torch",
        "weight_decay": float(settings["weight_decay"]),
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "gradient_accumulation_steps": settings["gradient_accumulation"],
        "max_grad_norm": float(settings["max_grad_norm"]),
        "bf16": settings["precision"] == "bf16",
        "fp16": settings["precision"] == "fp16",
        "gradient_checkpointing": settings["gradient_checkpointing"],
        "torch_compile": settings["compile"],
        "load_best_model_at_end": settings["keep_best"],
        "seed": settings["seed"],
        "prompts": settings["prompts"] or "None",
        "batch_sampler": settings["batch_sampler"],
        "multi_dataset_batch_sampler": settings["multi_dataset_batch_sampler"],
        "dataset_weights": settings["dataset_weights"],
        "early_stopping_patience": settings["early_stopping_patience"],
        "early_stopping_threshold": settings["early_stopping_threshold"] or None,
        "replay": settings["replay"],
    }
    return {name: str(value) for name, value in values.items() if value is not None}


# ---- its log --------------------------------------------------------------------------------------------------------


def training_logs(
    entries: Sequence[Mapping[str, float]],
    *,
    log_every: int | None,
    primary: Collection[str],
    best_step: int | None,
    eval_datasets: Collection[str] = (),
) -> TrainingLogs | None:
    """One row for each step with an entry, or None if there is none.

    Args:
        entries: losses and metrics, the latter with "eval_" before their names.
        log_every: the loss of any other step, which is the last, is left out, as the reference does; None for all.
        primary: the metrics to show.
        best_step: the step of the saved weights, shown in bold.
        eval_datasets: names of the data sets whose losses are shown; "" for one without a name.
    """
    validation = {f"eval_{loss_metric(name)}": _validation_loss(name) for name in eval_datasets}
    metrics = {**{f"eval_{name}": name for name in primary}, **validation}
    rows: dict[int, dict[str, float | int]] = {}
    for entry in entries:
        shown: dict[str, float | int] = {metrics[name]: value for name, value in entry.items() if name in metrics}
        if "loss" in entry and (log_every is None or entry["step"] % log_every == 0):
            shown[_TRAINING_LOSS] = entry["loss"]
        if shown:
            step = int(entry["step"])
            rows.setdefault(step, {"Epoch": float(entry["epoch"]), "Step": step}).update(shown)
    if not rows:
        return None
    seen = dict.fromkeys(name for row in rows.values() for name in row)
    losses = [name for name in (_TRAINING_LOSS, *validation.values()) if name in seen]
    columns = tuple(dict.fromkeys(["Epoch", "Step", *losses, *seen]))
    cells = (tuple(_cell(row.get(column), bold=step == best_step) for column in columns) for step, row in rows.items())
    return TrainingLogs(columns, tuple(cells), tuple(index for index, step in enumerate(rows) if step == best_step))


def _validation_loss(name: str) -> str:
    """Name of the column with the loss on a data set."""
    return f"{name} loss".replace("_", " ") if name else "Validation Loss"


def _cell(value: float | int | None, *, bold: bool) -> str:
    if value is None:
        return "-"
    return str(round(value, 4)) if bold else number_text(value)


def number_text(value: float | int) -> str:
    """A value as tables show it: a float with more than four decimals is cut to four."""
    text = str(value)
    return f"{value:.4f}" if isinstance(value, float) and len(text.partition(".")[2]) > 4 else text


def training_time(seconds: float, evaluation_seconds: float = 0.0) -> TrainingTime:
    """The duration of a run; the part spent on evaluations is shown separately."""
    if not evaluation_seconds:
        return TrainingTime(_duration(seconds))
    return TrainingTime(_duration(seconds - evaluation_seconds), _duration(evaluation_seconds), _duration(seconds))


def _duration(seconds: float) -> str:
    """In the largest unit of which it is at least one."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


# ---- papers ---------------------------------------------------------------------------------------------------------


def citations(losses: Iterable[str], variants: Mapping[str, str] | None = None) -> tuple[Citation, ...]:
    """The papers on the format and on these losses; losses with one paper share an entry.

    Args:
        losses: class names.
        variants: class name to the name of the paper in `papers`, where that is not the same.
    """
    sharing: dict[str, list[str]] = {}
    for name in dict.fromkeys(["Sentence Transformers", *losses]):
        paper = (variants or {}).get(name, name)
        if paper in papers():
            sharing.setdefault(papers()[paper], []).append(name)
    return tuple(Citation(tuple(names), bibtex) for bibtex, names in sharing.items())


@cache
def papers() -> Mapping[str, str]:
    """BibTeX by name of the loss or of a variant of it (`Loss.paper`), and for "Sentence Transformers"."""
    text = Path(__file__).with_name("citations.bib").read_text(encoding="utf-8")
    entries = (entry.partition("\n") for entry in text.removeprefix("% ").rstrip("\n").split("\n\n% "))
    return {name: bibtex for names, _, bibtex in entries for name in names.split(", ")}
