"""An option for each field of TrainingConfig, in groups."""

from __future__ import annotations

import argparse
import inspect
import json
import re
from dataclasses import fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

GROUPS = {
    "rows and batches": (
        "epochs",
        "max_steps",
        "batch_size",
        "eval_batch_size",
        "gradient_accumulation",
        "batch_sampler",
        "multi_dataset_batch_sampler",
        "dataset_weights",
        "prompts",
        "seed",
    ),
    "optimizer and learning rate": (
        "learning_rate",
        "lr_scheduler_type",
        "lr_scheduler_kwargs",
        "learning_rate_mapping",
        "freeze",
        "warmup_steps",
        "weight_decay",
        "max_grad_norm",
    ),
    "how it is computed": ("precision", "gradient_checkpointing", "compile", "replay"),
    "log, evaluation and checkpoints": (
        "log_every",
        "eval_every",
        "eval_each_epoch",
        "save_every",
        "save_total_limit",
        "keep_best",
        "metric_for_best_model",
        "greater_is_better",
        "early_stopping_patience",
        "early_stopping_threshold",
    ),
}


def add_settings(parser: argparse.ArgumentParser, *, instead_of: str | None = None) -> None:
    """Add the options.

    Args:
        parser: of the command.
        instead_of: owner of the settings that the options override; by default those of TrainingConfig itself.
    """
    from ..training.config import TrainingConfig

    descriptions, hints = _attribute_descriptions(TrainingConfig), get_type_hints(TrainingConfig)
    known = {field.name: field for field in fields(TrainingConfig)}
    for title, names in GROUPS.items():
        group = parser.add_argument_group(f"settings: {title}")
        for name in names:
            default = known[name].default
            text = descriptions.get(name, "").replace("%", "%%")
            arguments: dict[str, Any] = {"default": None if instead_of else default, **_type(name, hints[name])}
            if bool in (hints[name], *get_args(hints[name])):
                plain = default is False and not instead_of
                arguments["action"] = "store_true" if plain else argparse.BooleanOptionalAction
            elif instead_of or default not in (None, ()):
                text += f" (default: {instead_of or default})"
            group.add_argument(f"--{name.replace('_', '-')}", help=text, **arguments)


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of TrainingConfig that have a value."""
    values = {name: getattr(options, name) for names in GROUPS.values() for name in names}
    return {
        name: dict(value) if name in _PAIRS and isinstance(value, list) else value
        for name, value in values.items()
        if value is not None
    }


def _type(name: str, hint: Any) -> dict[str, Any]:
    """The arguments with which argparse reads a field of a type."""
    if name in _PARSERS:
        return _PARSERS[name]
    parts = [part for part in get_args(hint) if part is not NoneType]  # of `X | None`
    hint = parts[0] if parts and get_origin(hint) is not Literal else hint
    if hint is bool:
        return {}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    return {"type": hint, "metavar": "NAME" if hint is str else "N"}


def _pair(text: str) -> tuple[str, float]:
    """Parse "name=1e-5"; the name may be a regular expression with "=" in it."""
    name, separator, number = text.rpartition("=")
    try:
        if not separator or not name:
            raise ValueError
        value = float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a name and a number, such as {_EXAMPLE}") from None
    return name, int(value) if value.is_integer() and re.fullmatch(r"\d+", number) else value


def read_prompts(text: str) -> Any:
    """Parse a text, or texts by name as JSON."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError:
        example = '{"question": "query: "}'
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a text, or JSON such as {example}") from None


_EXAMPLE = "num_cycles=3"
_PAIRS = ("lr_scheduler_kwargs", "learning_rate_mapping", "dataset_weights")
_PARSERS: dict[str, dict[str, Any]] = {
    "lr_scheduler_kwargs": {"type": _pair, "nargs": "+", "metavar": "NAME=N"},
    "learning_rate_mapping": {"type": _pair, "nargs": "+", "metavar": "NAME=N"},
    "dataset_weights": {"type": _pair, "nargs": "+", "metavar": "NAME=N"},
    "freeze": {"nargs": "+", "metavar": "NAME"},
    "prompts": {"type": read_prompts, "metavar": "TEXT"},
}


def _attribute_descriptions(documented: type) -> dict[str, str]:
    """Read the entries under "Attributes:" in a class's docstring."""
    section = (inspect.getdoc(documented) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    entries = re.split(r"\n {4}(?! )", f"\n{section}")[1:]
    pairs = (" ".join(entry.split()).rstrip(".").partition(": ") for entry in entries)
    return {name: text for name, _, text in pairs}
