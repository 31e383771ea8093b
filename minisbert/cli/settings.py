"""A training run as options of a command: its rows, where it goes, and its settings."""

from __future__ import annotations

import argparse
import inspect
from dataclasses import fields, replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from .options import column_names, label_scale, output_path

if TYPE_CHECKING:
    from ..training.config import TrainingConfig

_PICTURED = 40  # log entries in a picture, at least


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """What a run trains on, and where it runs and goes."""
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="training rows")
    parser.add_argument("--columns", type=column_names, help="the columns to use, in order, such as question,answer")
    parser.add_argument(
        "--scale",
        type=label_scale,
        metavar="LOW-HIGH",
        help="the scores that stand for 0 and 1, such as 0-5 (or --scale=-1-1)",
    )
    parser.add_argument("--output", type=output_path, required=True, metavar="DIR", help="folder for the model")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the newest whole checkpoint in the output folder (start anew where there is none)",
    )
    parser.add_argument("--device", help="cpu, cuda, mps (default: the best there is)")
    parser.add_argument("--report", action="store_true", help="draw the run, and the similarities before and after")


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


def log_often(config: TrainingConfig, *, rows: int) -> TrainingConfig:
    """Settings that log often enough for a picture of the run, where they log less."""
    return replace(config, log_every=min(config.log_every, max(1, config.steps_over(rows) // _PICTURED)))


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
