"""Model folders and model cards as a few aligned lines."""

from __future__ import annotations

import ast
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..card.parsing import comes_from_fit, read_module
from ..errors import ModelError
from ..storage import dialects
from .options import aligned, shortened

if TYPE_CHECKING:
    from ..card import CardFacts, ColumnStatistics, DatasetFacts, Evaluation, LossFacts, TrainingLogs
    from ..storage.contents import EncoderContents, ModelContents

# The settings to show even where they are defaults, which cards list only among all hyperparameters.
_ESSENTIAL = ("num_train_epochs", "per_device_train_batch_size", "learning_rate")
_SMALL_FILE = 10_000
_SHOWN_DETAILS = 4
_WIDTH = 90


def model_summary(model: ModelContents) -> str:
    """Summarize a model folder."""
    first, *others = model.modules
    lower = " lower-cased" if first.settings.get("do_lower_case") else ""
    modules = [_module("Transformer", first.settings, model.encoder.architecture) + lower]
    modules += [_module(module.kind, module.settings) for module in others]
    algorithm = f" ({model.tokenizer.algorithm})" if model.tokenizer.algorithm else ""
    truncated = f" (truncate_dim {model.truncate_dim})" if model.truncate_dim is not None else ""
    return _grouped(
        ("modules", modules),
        ("encoder", _encoder(model.encoder)),
        ("weights", [_weights(model)]),
        ("dimension", [f"{model.dimension}{truncated}" if model.dimension is not None else "not stated"]),
        ("max tokens", [str(model.max_seq_length)]),
        ("similarity", [model.similarity or "cosine (not set)"]),
        ("prompts", _prompts(model)),
        ("tokenizer", [model.tokenizer.kind + algorithm]),
        ("written by", _listed(model.versions)),
        ("files", _files(model.files)),
        ("note", model.notes),
    )


def card_summary(card: CardFacts) -> str:
    """Summarize a model card."""
    about = card.description
    revision = f" at {about.base_model_revision[:7]}" if about.base_model_revision else ""
    longest = about.max_seq_length
    training = [line for dataset in card.training_datasets for line in _dataset(dataset)]
    time = card.training_time
    modules = [found for line in card.architecture if (found := read_module(line.rstrip()))]
    summary = _grouped(
        ("base model", [f"{about.base_model}{revision}"] if about.base_model else []),
        ("dimension", [str(about.dimension)] if about.dimension is not None else []),
        ("max tokens", [] if longest is None else ["no limit" if longest == math.inf else str(longest)]),
        ("similarity", [about.similarity]),
        ("modules", [_printed_module(*found) for found in modules]),
        ("trained on", training),
        ("eval data", [_rows(dataset) for dataset in card.evaluation_datasets]),
        ("settings", _settings(card)),
        ("logs", _logs(card.logs) if card.logs else ["not logged"] if training else []),
        ("results", aligned(row for one in card.evaluations for row in _results(one))),
        ("time", [time.training] if time else []),
        ("versions", _listed(card.versions)),
    )
    return f"{shortened(card.title, 100)}\n\n{summary}"


# ---- model folders --------------------------------------------------------------------------------------------------


def _encoder(encoder: EncoderContents) -> list[str]:
    sizes = {
        "{:,} layers": encoder.layers,
        "{:,} heads": encoder.heads,
        "hidden size {:,}": encoder.hidden_size,
        "vocabulary {:,}": encoder.vocabulary,
        "{:,} positions": encoder.positions,
    }
    known = [text.format(size) for text, size in sizes.items() if size is not None]
    return [", ".join(known)] if known else []


def _weights(model: ModelContents) -> str:
    if model.parameters is None:
        return "in a pickle, not counted" if any(name.endswith(".bin") for name in model.files) else "none"
    return f"{model.parameters:,} parameters, {' and '.join(model.dtypes)}"


def _prompts(model: ModelContents) -> list[str]:
    shown = [
        (name, repr(text), "default" if name == model.default_prompt_name else "")
        for name, text in model.prompts.items()
        if text
    ]
    return aligned(shown) if shown else ["none"]


def _files(files: Mapping[str, int]) -> list[str]:
    large = {
        name: size for name, size in files.items() if size >= _SMALL_FILE or name.endswith((".safetensors", ".bin"))
    }
    rows = [(name, _size(size)) for name, size in large.items()]
    small = [size for name, size in files.items() if name not in large]
    if small:
        rows.append((f"{len(small)} small file{'s' if len(small) > 1 else ''}", _size(sum(small))))
    width = max((len(size) for _, size in rows), default=0)
    return aligned((name, size.rjust(width)) for name, size in rows)


def _size(number: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"


# ---- modules --------------------------------------------------------------------------------------------------------


def _printed_module(kind: str, text: str, architecture: str) -> str:
    try:
        settings = ast.literal_eval(text) if text else {}
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        settings = {}
    settings = settings if isinstance(settings, dict) else {}
    return _module(kind, settings, str(settings.get("architecture") or architecture))


def _module(kind: str, settings: Mapping[str, Any], architecture: str = "") -> str:
    if kind == "Pooling":
        try:
            dimension, modes, _ = dialects.read_pooling(settings)
        except ModelError:
            return kind
        return f"Pooling {' + '.join(modes)}, {dimension}"
    if kind == "Dense" and {"in_features", "out_features"} <= settings.keys():
        activation = str(settings.get("activation_function", dialects.DEFAULT_ACTIVATION)).rpartition(".")[2]
        return f"Dense {settings['in_features']} to {settings['out_features']}, {activation}"
    shown = {"Transformer": architecture, "LayerNorm": settings.get("dimension"), "Dropout": settings.get("dropout")}
    return f"{kind} {shown.get(kind) or ''}".strip()


# ---- cards ----------------------------------------------------------------------------------------------------------


def _dataset(dataset: DatasetFacts) -> list[str]:
    statistics = {one.column: one for one in dataset.statistics}
    columns = aligned((name, *_column(statistics.get(name))) for name in dataset.columns)
    return [
        _rows(dataset),
        *(f"  {line}" for line in columns),
        *_loss(dataset.loss),
    ]


def _rows(dataset: DatasetFacts) -> str:
    rows = f"{dataset.size:,} rows" if dataset.size is not None else "a stream of rows"
    return f"{dataset.name}: {rows}" if dataset.name else rows


def _column(found: ColumnStatistics | None) -> tuple[str, ...]:
    if found is None:
        return ()
    details = dict(found.details)
    if not details.keys() >= {"min", "mean", "max"}:
        shown = [f"{name}: {value}" for name, value in found.details]
        more = f", {len(shown) - _SHOWN_DETAILS} more" if len(shown) > _SHOWN_DETAILS else ""
        return found.type, ", ".join(shown[:_SHOWN_DETAILS]) + more
    least, _, unit = details["min"].partition(" ")
    return found.type, f"mean {details['mean']} ({least} to {details['max'].removesuffix(f' {unit}')})"


def _loss(loss: LossFacts) -> list[str]:
    if isinstance(loss.parameters, str):
        return [f"with {loss.name}: {shortened(loss.parameters)}"]
    # Classes of torch by their last name: "torch.nn.modules.loss.MSELoss" is MSELoss.
    texts = {
        name: re.sub(r"^torch\.[\w.]*\.(\w+)$", r"\1", str(value)[:200])
        for name, value in (loss.parameters or {}).items()
        if value is not None
    }
    return textwrap.wrap(f"with {loss.name}{': ' if texts else ''}{_comma(texts)}", _WIDTH, subsequent_indent="  ")


def _settings(card: CardFacts) -> list[str]:
    if not card.hyperparameters:
        return []
    from_fit = comes_from_fit(card)
    rows = [(name, shortened(value), "") for name, value in card.non_default_hyperparameters.items()]
    for name in _ESSENTIAL:
        unknown = from_fit and name == "learning_rate"
        if name in card.hyperparameters and name not in card.non_default_hyperparameters and not unknown:
            rows.append((name, card.hyperparameters[name], "default"))
    note = ["trained by fit: the card does not state learning rate, weight decay and warm-up"] if from_fit else []
    return [*aligned(rows), *note]


def _logs(logs: TrainingLogs) -> list[str]:
    rows = []
    for index, column in enumerate(logs.columns[2:], start=2):
        cells = [(row[1], row[index]) for row in logs.rows if _is_number(row[index])]
        if not cells:
            continue
        if column == "Training Loss":
            (first, value), (last, end) = cells[0], cells[-1]
            rows.append((column, f"{value} at step {first}" + (f", {end} at step {last}" if first != last else "")))
        else:
            choose = min if column.lower().endswith("loss") else max
            step, best = choose(cells, key=lambda cell: float(cell[1]))
            rows.append((column, f"{best} at step {step}" + (", the best" if len(cells) > 1 else "")))
    kept = [f"the weights of step {logs.rows[index][1]} were saved" for index in logs.bold_rows]
    return [*aligned(rows), *kept]


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _results(evaluation: Evaluation) -> Iterable[tuple[str, ...]]:
    primary = next((metric for metric in evaluation.metrics if metric.primary), None)
    shown = primary or next(iter(evaluation.metrics), None)
    if shown is None:
        return
    for name, value in zip(evaluation.datasets or ("",), shown.values, strict=False):
        yield evaluation.description + (f" on {name}" if name else ""), shown.name, str(value)


# ---- text -----------------------------------------------------------------------------------------------------------


def _comma(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {shortened(value)}" for name, value in values.items())


def _listed(values: Mapping[str, str]) -> list[str]:
    return textwrap.wrap(_comma(values), _WIDTH)


def _grouped(*groups: tuple[str, Sequence[str]]) -> str:
    """The lines of each group after its name; a group without lines is left out."""
    width = max(len(name) for name, _ in groups)
    return "\n".join(
        f"{'' if index else name:<{width}}  {line}".rstrip()
        for name, lines in groups
        for index, line in enumerate(lines)
    )
