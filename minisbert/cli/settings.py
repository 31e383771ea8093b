"""The settings of a training run as options of a command."""

from __future__ import annotations

import argparse
import inspect
from dataclasses import fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints


def add_settings(parser: argparse.ArgumentParser, *, instead_of: str | None = None) -> None:
    """One option for each field of TrainingConfig, with its description.

    Args:
        parser: of the command.
        instead_of: whose settings the options override; by default TrainingConfig's own.
    """
    from ..training.config import TrainingConfig

    group = parser.add_argument_group("settings (the fields of TrainingConfig)")
    about = _attribute_descriptions(TrainingConfig)
    hints = get_type_hints(TrainingConfig)
    for field in fields(TrainingConfig):
        option = f"--{field.name.replace('_', '-')}"
        text = about.get(field.name, "").replace("%", "%%")
        default: Any = None if instead_of else field.default
        kinds = [kind for kind in get_args(hints[field.name]) if kind is not NoneType]  # of `X | None`
        kind: Any = kinds[0] if kinds and get_origin(hints[field.name]) is not Literal else hints[field.name]
        if kind is bool:
            action: Any = argparse.BooleanOptionalAction if instead_of else "store_true"
            group.add_argument(option, action=action, default=default, help=text)
            continue
        text = f"{text} (default: {instead_of or field.default})" if instead_of or field.default is not None else text
        if get_origin(kind) is Literal:
            group.add_argument(option, choices=get_args(kind), default=default, help=text)
        else:
            group.add_argument(option, type=kind, default=default, metavar="N", help=text)


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of TrainingConfig for which there is a value."""
    from ..training.config import TrainingConfig

    values = {field.name: getattr(options, field.name) for field in fields(TrainingConfig)}
    return {name: value for name, value in values.items() if value is not None}


def _attribute_descriptions(documented: type) -> dict[str, str]:
    """The entries under "Attributes:" in a class's docstring."""
    lines = (inspect.getdoc(documented) or "").partition("Attributes:\n")[2].partition("\n\n")[0].splitlines()
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        if line.startswith("    ") and not line.startswith("     "):
            name, _, found_text = line.strip().partition(": ")
            found[name] = found_text
        else:
            found[name] += f" {line.strip()}"
    return {name: text.rstrip(".") for name, text in found.items()}
