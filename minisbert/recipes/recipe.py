"""A recipe for a model, in Python and in YAML, and read from a model card."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from ..card.facts import CardFacts
from ..card.front_matter import read_yaml
from ..card.parsing import comes_from_fit, read_card, read_module, read_text
from ..data.roles import LABEL_NAMES
from ..data.rows import RowSampling
from ..errors import ConfigError, InputError, ModelError
from ..storage.dialects import is_count, read_pooling
from ..training.config import TrainingConfig
from ..training.schedules import SchedulerName

_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
TrainedWith: TypeAlias = Literal["fit", "trainer"]

# Printed settings of transformers, and the fields of a TrainingConfig that follow them.
_NUMBERS = {
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "max_grad_norm": "max_grad_norm",
    "gradient_accumulation_steps": "gradient_accumulation",
    "seed": "seed",
}
_CHOICES = {
    "batch_sampler": get_args(RowSampling),
    "multi_dataset_batch_sampler": ("proportional", "round_robin"),
    "lr_scheduler_type": get_args(SchedulerName),
}
_FOLLOWED = {
    *_NUMBERS,
    *("max_steps", "learning_rate", "weight_decay", "warmup_steps", "warmup_ratio", "fp16", "bf16", "torch_compile"),
    "gradient_checkpointing",
    *("lr_scheduler_kwargs", "learning_rate_mapping", "prompts", "freeze"),
    *("early_stopping_patience", "early_stopping_threshold"),
}
_EXPECTED = {
    "optim": ("adamw_torch", "adamw_torch_fused", "OptimizerNames.ADAMW_TORCH", "OptimizerNames.ADAMW_TORCH_FUSED"),
}
_OVER_LAYERS = ("AdaptiveLayerLoss", "Matryoshka2dLoss")
_NOW = (6, 0)  # the version from which on losses are those of minisbert
# Settings that do not affect the weights: what and when to log, save and evaluate, and how the work is spread over a
# machine.
_WITHOUT_EFFECT = re.compile(
    r"per_device_eval_batch_size|eval_\w+|do_\w+|load_best_model_at_end|save_\w+|logging_\w+|report_to|run_name|hub_\w+"
    r"|push_to_hub\w*|ddp_\w+|tf32|use_cpu|no_cuda|disable_tqdm|remove_unused_columns|overwrite_output_dir|log_level\w*"
    r"|dataloader_(num_workers|pin_memory|persistent_workers|prefetch_factor)|gradient_checkpointing_kwargs|replay|project"
    r"|trackio_space_id|local_rank|metric_for_best_model|greater_is_better|resume_from_checkpoint|torch_compile_\w+"
    r"|router_mapping|fp16_full_eval|bf16_full_eval|skip_memory_metrics|include_\w+"
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The base model, data, loss and settings that a model was made with.

    Attributes:
        base_model: folder, or name on the Hub, of the model to start from; None if unknown.
        base_model_revision: its commit, if known.
        modules: kinds of the modules in order, such as ("Transformer", "Pooling", "Normalize").
        pooling_mode: modes of Pooling; empty if the model has none.
        max_seq_length: longest text in tokens, or None for the base model's.
        similarity: "cosine", "dot", "euclidean" or "manhattan".
        loss: class name.
        loss_parameters: as the loss states them.
        trained_with: "fit", whose cards do not state learning rate, decay and warm-up, or "trainer".
        settings: fields of a `TrainingConfig` that differ from its defaults.
        evaluator: class name of the evaluator, or None.
        rows: number of training rows, or None.
        texts: names of the text columns, in order; empty if unknown.
        label: name of the label column, or None.
        not_followed: settings of the card that minisbert does not support, as printed.
    """

    base_model: str | None = None
    base_model_revision: str | None = None
    modules: tuple[str, ...] = ("Transformer", "Pooling", "Normalize")
    pooling_mode: tuple[str, ...] = ("mean",)
    max_seq_length: int | None = None
    similarity: str = "cosine"
    loss: str
    loss_parameters: Mapping[str, Any] = field(default_factory=dict)
    trained_with: TrainedWith = "trainer"
    settings: Mapping[str, Any] = field(default_factory=dict)
    evaluator: str | None = None
    rows: int | None = None
    texts: tuple[str, ...] = ()
    label: str | None = None
    not_followed: tuple[str, ...] = ()


def write_recipe(recipe: Recipe) -> str:
    """The recipe as YAML; empty fields are left out, except modules, pooling and similarity."""
    import yaml

    values = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(recipe).items()
        if name in ("modules", "pooling_mode", "similarity") or value not in (None, (), {})
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


def parse_recipe(text: str, *, source: str = "the recipe") -> Recipe:
    """A recipe from its YAML.

    Raises:
        InputError: it is not a recipe: a field is missing, unknown or of the wrong type.
    """
    try:
        values = read_yaml(text)
    except ValueError as error:
        raise InputError(f"{source}: {error}; expected a recipe in YAML: fix it") from None
    known = {place.name: place for place in fields(Recipe)}
    if not isinstance(values, dict):
        raise InputError(f"{source}: got a {type(values).__name__}; expected the fields {', '.join(known)}")
    for name in values:
        if name not in tuple(known):  # a key of YAML need not be hashable
            raise InputError(f"{source}: got the field {name!r}; expected one of {', '.join(known)}")
    for name, place in known.items():
        if name not in values and place.default is MISSING and place.default_factory is MISSING:
            raise InputError(f"{source} has no field {name!r}; expected it: add it")
    return Recipe(**{name: _checked(name, value, source) for name, value in values.items()})


def _checked(name: str, value: Any, source: str) -> Any:
    """The value of a field.

    Raises:
        InputError: it has the wrong type.
    """
    if name in ("modules", "pooling_mode", "texts", "not_followed"):
        right, wanted = isinstance(value, list) and all(isinstance(one, str) for one in value), "a list of names"
    elif name in ("loss_parameters", "settings"):
        right, wanted = isinstance(value, dict) and all(isinstance(key, str) for key in value), "values by name"
    elif name in ("max_seq_length", "rows"):
        right, wanted = is_count(value) and value < 2**63, "a number above 0"
    elif name == "trained_with":
        right, wanted = value in get_args(TrainedWith), f"one of {', '.join(get_args(TrainedWith))}"
    else:
        right, wanted = isinstance(value, str) and bool(value), "a text (in quotes)"
    if not right:
        raise InputError(f"{source}: got {value!r} for {name}; expected {wanted}")
    if isinstance(value, dict):
        return {key: _with_exponent(one) for key, one in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _with_exponent(value: Any) -> Any:
    """A value of YAML, which reads 2e-5 as a text and 2.0e-5 as a number: here both are numbers."""
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


# ---- from a file or a card ------------------------------------------------------------------------------------------


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in a file: a model card (.md), a folder with one, or a recipe (.yaml).

    Raises:
        InputError: the file cannot be read, or is neither.
        ConfigError: the card is of a model that minisbert cannot train.
    """
    return read_source(path)[0]


def read_source(path: str | Path) -> tuple[Recipe, CardFacts | None]:
    """`read_recipe`, and the facts of the card if the file is one."""
    file = Path(path)
    file = file / "README.md" if file.is_dir() else file
    if file.suffix.lower() not in (".yaml", ".yml"):
        card = read_card(file)
        try:
            return recipe_of(card), card
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
    return parse_recipe(read_text(file, "a recipe"), source=str(file)), None


def recipe_of(facts: CardFacts) -> Recipe:
    """The recipe of a trained model, from its card.

    Raises:
        InputError: the card describes no training or several data sets, or is incomplete.
        ConfigError: a setting is not supported by minisbert.
    """
    if len(facts.training_datasets) != 1:
        raise InputError(f"the card lists {len(facts.training_datasets)} training data sets; expected one")
    data = facts.training_datasets[0]
    parameters = data.loss.parameters
    if isinstance(parameters, str):
        raise ConfigError(f"the card prints the parameters of {data.loss.name} as {parameters!r}; expected JSON")
    parameters = dict(parameters or {})
    if data.loss.name in _OVER_LAYERS and "layer_weighting" not in parameters:
        parameters["layer_weighting"] = "linear"  # what versions before 6 compute, which print no name for it
    kinds, pooling = _modules(facts.architecture)
    types = {column.column: column.type for column in data.statistics}
    texts = tuple(n for n in data.columns if types.get(n, "") == "string" or (n not in types and n not in LABEL_NAMES))
    length = facts.description.max_seq_length
    base = facts.front_matter.base_model
    return Recipe(
        base_model=(base if isinstance(base, str) else None) or facts.description.base_model,
        base_model_revision=facts.description.base_model_revision,
        modules=kinds,
        pooling_mode=pooling,
        max_seq_length=int(length) if length is not None and length < math.inf else None,
        similarity=facts.description.similarity,
        loss=data.loss.name,
        loss_parameters=parameters,
        trained_with="fit" if comes_from_fit(facts) else "trainer",
        settings=_settings(facts),
        evaluator=facts.evaluations[0].evaluator if facts.evaluations else None,
        rows=data.size,
        texts=texts,
        label=next((name for name in data.columns if name not in texts), None),
        not_followed=(
            *_changed_since(data.loss.name, parameters, facts.versions.get("Sentence Transformers", "")),
            *(
                f"{name}={value}"
                for name, value in facts.non_default_hyperparameters.items()
                if not _is_followed(name, value)
            ),
        ),
    )


def _changed_since(loss: str, parameters: Mapping[str, Any], version: str) -> Iterator[str]:
    """Yield what a version of the reference computed in another way than the present one."""
    found = re.match(r"(\d+)\.(\d+)", version)
    number = (int(found[1]), int(found[2])) if found else _NOW
    metric = str(parameters.get("distance_metric", "TripletDistanceMetric.EUCLIDEAN"))
    if loss in _OVER_LAYERS and number < _NOW:
        yield f"{loss} as version {version} computes it, which leaves out the embeddings of words"
    if loss == "TripletLoss" and (5, 0) <= number < (5, 4) and not metric.endswith("COSINE"):
        yield f"TripletLoss as version {version} computes it, which draws negatives near and positives away"


def _modules(lines: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Kinds of the printed modules, and the modes of Pooling."""
    if len(lines) < 3 or not lines[0].endswith("(") or lines[-1] != ")":
        raise InputError("the card does not print the whole model; expected its Full Model Architecture as generated")
    kinds: list[str] = []
    pooling: tuple[str, ...] = ()
    for line in lines[1:-1]:
        module = read_module(line)
        if module is None:
            raise InputError(f"the card prints the module {line.strip()!r}; expected a name and its settings")
        kind, settings, _ = module
        kinds.append(kind)
        if kind == "Pooling":
            try:
                pooling = read_pooling(ast.literal_eval(settings))[1]
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, ModelError) as error:
                raise InputError(f"the card prints {line.strip()!r}; expected settings of Pooling ({error})") from None
    return tuple(kinds), pooling


def _settings(facts: CardFacts) -> dict[str, Any]:
    """The fields of a TrainingConfig that differ from its defaults."""
    printed = {**facts.non_default_hyperparameters, **facts.hyperparameters}
    if not printed:
        raise InputError("the card lists no hyperparameters; expected those of its training: take the whole card")
    max_steps = _number(printed, "max_steps") or 0
    config: dict[str, Any] = {
        **{field: _number(printed, name) for name, field in _NUMBERS.items()},
        "precision": next((name for name in ("fp16", "bf16") if printed.get(name) == "True"), None),
        "gradient_checkpointing": printed.get("gradient_checkpointing") == "True",
        "compile": printed.get("torch_compile") == "True",
        **{name: _choice(name, printed.get(name, "")) for name in _CHOICES},
        "lr_scheduler_kwargs": _mapping(printed, "lr_scheduler_kwargs"),
        "learning_rate_mapping": _mapping(printed, "learning_rate_mapping"),
        "prompts": _prompts(printed.get("prompts", "None")),
        "freeze": _names(printed, "freeze"),
        "early_stopping_patience": _number(printed, "early_stopping_patience"),
        "early_stopping_threshold": _number(printed, "early_stopping_threshold"),
        "eval_batch_size": _number(printed, "per_device_eval_batch_size") if facts.evaluation_datasets else None,
        "max_steps": max_steps if max_steps > 0 else None,
        **_intervals(facts),
    }
    if not comes_from_fit(facts):
        config |= {
            "learning_rate": _number(printed, "learning_rate"),
            "weight_decay": _number(printed, "weight_decay"),
            "warmup_steps": _number(printed, "warmup_steps") or _number(printed, "warmup_ratio") or 0,
            "keep_best": printed.get("load_best_model_at_end") == "True",
        }
    usual = {field.name: field.default for field in fields(TrainingConfig)}
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in config.items()
        if value is not None and value != usual[name]
    }


def _intervals(facts: CardFacts) -> dict[str, int | None]:
    """The steps between two log entries and two evaluations, from the table of logs."""
    logs = facts.logs
    if logs is None:
        return {}
    steps = logs.values("Step")

    def first(columns: list[str]) -> int | None:
        rows = [step for column in columns for step, value in zip(steps, logs.values(column), strict=True) if value]
        return min((int(step) for step in rows if step and 1 <= step < math.inf), default=None)

    losses = [name for name in logs.columns if name == "Training Loss"]
    metrics = [name for name in logs.columns if name not in ("Epoch", "Step", *losses)]
    evaluated = facts.evaluations or facts.evaluation_datasets
    return {"log_every": first(losses), "eval_every": first(metrics) if evaluated else None}


def _is_followed(name: str, value: str) -> bool:
    if name in _CHOICES:
        return _choice(name, value) is not None
    return name in _FOLLOWED or value in _EXPECTED.get(name, ()) or _WITHOUT_EFFECT.fullmatch(name) is not None


def _number(printed: Mapping[str, str], name: str) -> float | None:
    """A setting that is a number, or None if the card does not list it."""
    text = printed.get(name, "None")
    try:
        return None if text == "None" else float(text)
    except ValueError:
        raise InputError(f"the card prints {name} as {text!r}; expected a number") from None


def _mapping(printed: Mapping[str, str], name: str) -> dict[str, Any] | None:
    """A setting that is a dict, or None if the card does not list it or prints an empty one."""
    value = _literal(printed.get(name, "None"))
    if value is not None and not isinstance(value, dict):
        raise InputError(f"the card prints {name} as {printed[name]!r}; expected a dict")
    return value or None


def _names(printed: Mapping[str, str], name: str) -> list[str] | None:
    """A setting that is a list of names, or None if the card does not list it."""
    value = _literal(printed.get(name, "None"))
    if value is not None and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
        raise InputError(f"the card prints {name} as {printed[name]!r}; expected a list of names")
    return value


def _prompts(text: str) -> Any:
    """The prompts of a card: a dict, or a text as it is."""
    value = _literal(text)
    return value if value is None or isinstance(value, dict) else text


def _literal(text: str) -> Any:
    """The value that a text prints, or the text itself if it prints none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _choice(name: str, text: str) -> str | None:
    """The value of a setting of TrainingConfig, also where it is printed as a member of an enumeration."""
    value = text.rpartition(".")[2].lower().removesuffix("_hashed")  # the same batches without duplicates
    return value if value in _CHOICES[name] else None
