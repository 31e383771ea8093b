"""The recipe that a model card tells."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..card.facts import CardFacts
from ..card.parsing import comes_from_fit, read_module
from ..data.roles import LABEL_NAMES
from ..errors import ConfigError, InputError, ModelError
from ..storage.dialects import read_pooling
from ..training.config import TrainingConfig
from .recipe import Recipe

# Settings of transformers that decide nothing about the weights: where and what to log, save and evaluate, and how
# the work is spread over a machine.
_WITHOUT_EFFECT = re.compile(
    r"per_device_eval_batch_size|eval_\w+|do_\w+|load_best_model_at_end|save_\w+|logging_\w+|report_to|run_name|hub_\w+"
    r"|push_to_hub\w*|ddp_\w+|tf32|use_cpu|no_cuda|disable_tqdm|remove_unused_columns|overwrite_output_dir|log_level\w*"
    r"|dataloader_(num_workers|pin_memory|persistent_workers|prefetch_factor)|gradient_checkpointing\w*|replay|project"
    r"|trackio_space_id|local_rank|metric_for_best_model|greater_is_better|resume_from_checkpoint|torch_compile_\w+"
    r"|router_mapping|learning_rate_mapping|fp16_full_eval|bf16_full_eval|skip_memory_metrics|include_\w+"
)


def recipe_of(facts: CardFacts) -> Recipe:
    """The recipe of a trained model from its card.

    Raises:
        InputError: the card tells of no training, of several data sets, or is not whole.
        ConfigError: a setting is beyond what minisbert has.
    """
    if len(facts.training_datasets) != 1:
        raise InputError(f"the card tells of {len(facts.training_datasets)} training data sets; expected one")
    data = facts.training_datasets[0]
    parameters = data.loss.parameters
    if isinstance(parameters, str):
        raise ConfigError(f"the card prints the parameters of {data.loss.name} as {parameters!r}; expected JSON")
    kinds, pooling = _modules(facts.architecture)
    types = {column.column: column.type for column in data.statistics}
    texts = tuple(n for n in data.columns if types.get(n, "") == "string" or (n not in types and n not in LABEL_NAMES))
    settings, not_followed = _settings(facts)
    length = facts.description.max_seq_length
    return Recipe(
        base_model=facts.front_matter.base_model or facts.description.base_model,
        base_model_revision=facts.description.base_model_revision,
        modules=kinds,
        pooling_mode=pooling,
        max_seq_length=int(length) if length is not None and length < math.inf else None,
        similarity=facts.description.similarity,
        loss=data.loss.name,
        loss_parameters=dict(parameters or {}),
        trained_with="fit" if comes_from_fit(facts) else "trainer",
        settings=settings,
        evaluator=facts.evaluations[0].evaluator if facts.evaluations else None,
        rows=data.size,
        texts=texts,
        label=next((name for name in data.columns if name not in texts), None),
        not_followed=not_followed,
    )


def _modules(lines: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Kinds of the printed modules, and the modes of Pooling."""
    if len(lines) < 3 or not lines[0].endswith("(") or lines[-1] != ")":
        raise InputError("the card does not print the whole model; expected its Full Model Architecture as generated")
    kinds: list[str] = []
    pooling: tuple[str, ...] = ()
    for line in lines[1:-1]:
        found = read_module(line)
        if found is None:
            raise InputError(f"the card prints the module {line.strip()!r}; expected a name and its settings")
        kind, settings, _ = found
        kinds.append(kind)
        if kind == "Pooling":
            try:
                pooling = read_pooling(ast.literal_eval(settings))[1]
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, ModelError) as error:
                raise InputError(f"the card prints {line.strip()!r}; expected settings of Pooling ({error})") from None
    return tuple(kinds), pooling


def _settings(facts: CardFacts) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fields of a TrainingConfig that are not as usual, and what has no match."""
    printed = {**facts.non_default_hyperparameters, **facts.hyperparameters}
    if not printed:
        raise InputError("the card lists no hyperparameters; expected those of its training: take the whole card")
    steps = {name: value for name in ("max_steps",) if (value := _number(printed, name)) and value > 0}
    warmup = _number(printed, "warmup_steps") or _number(printed, "warmup_ratio") or 0
    config: dict[str, Any] = {
        "epochs": _number(printed, "num_train_epochs"),
        "batch_size": _number(printed, "per_device_train_batch_size"),
        "max_grad_norm": _number(printed, "max_grad_norm"),
        "gradient_accumulation": _number(printed, "gradient_accumulation_steps"),
        "seed": _number(printed, "seed"),
        "precision": next((name for name in ("fp16", "bf16") if printed.get(name) == "True"), None),
        "compile": printed.get("torch_compile") == "True",
        "batch_sampler": _choice(printed, "batch_sampler"),
        "multi_dataset_batch_sampler": _choice(printed, "multi_dataset_batch_sampler"),
        **steps,
        **_course(facts),
    }
    if not comes_from_fit(facts):
        config |= {
            "learning_rate": _number(printed, "learning_rate"),
            "weight_decay": _number(printed, "weight_decay"),
            "warmup_steps": warmup,
            "keep_best": printed.get("load_best_model_at_end") == "True",
        }
    usual = {place.name: place.default for place in fields(TrainingConfig)}
    kept = {name: _whole(value) for name, value in config.items() if value is not None and value != usual[name]}
    return kept, tuple(_not_followed(facts))


def _course(facts: CardFacts) -> dict[str, Any]:
    """How often the run logged and evaluated, as the table of logs shows it."""
    logs = facts.logs
    found: dict[str, Any] = {}
    if logs is None:
        return found
    steps = logs.values("Step")

    def first(columns: list[str]) -> int | None:
        rows = [step for column in columns for step, value in zip(steps, logs.values(column), strict=True) if value]
        return min((int(step) for step in rows if step and 1 <= step < math.inf), default=None)

    if "Training Loss" in logs.columns:
        found["log_every"] = first(["Training Loss"])
    if facts.evaluations:
        metrics = [name for name in logs.columns if name not in ("Epoch", "Step") and not name.endswith("Loss")]
        found["eval_every"] = first(metrics)
    return found


def _not_followed(facts: CardFacts) -> list[str]:
    followed = {
        "num_train_epochs",
        "max_steps",
        "per_device_train_batch_size",
        "learning_rate",
        "weight_decay",
        "warmup_steps",
        "warmup_ratio",
        "max_grad_norm",
        "gradient_accumulation_steps",
        "seed",
        "fp16",
        "bf16",
        "torch_compile",
    }
    expected = {
        "lr_scheduler_type": ("linear", "SchedulerType.LINEAR"),
        "optim": ("adamw_torch", "adamw_torch_fused", "OptimizerNames.ADAMW_TORCH", "OptimizerNames.ADAMW_TORCH_FUSED"),
    }
    found = []
    for name, value in facts.non_default_hyperparameters.items():
        if name in followed or _WITHOUT_EFFECT.fullmatch(name) or value in expected.get(name, ()):
            continue
        if name in ("batch_sampler", "multi_dataset_batch_sampler") and _choice({name: value}, name) is not None:
            continue
        found.append(f"{name}={value}")
    return found


def _number(printed: Mapping[str, str], name: str) -> float | None:
    """A setting that is a number, or None where the card does not list it."""
    text = printed.get(name)
    if text is None or text == "None":
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(f"the card prints {name} as {text!r}; expected a number") from None


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _choice(printed: Mapping[str, str], name: str) -> str | None:
    """A setting that is one of those of TrainingConfig, also where it is printed as a member of an enumeration."""
    text = printed.get(name, "").rpartition(".")[2].lower()
    known = {
        "batch_sampler": ("batch_sampler", "no_duplicates"),
        "multi_dataset_batch_sampler": ("proportional", "round_robin"),
    }
    return text if text in known[name] else None
