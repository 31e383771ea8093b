"""`minisbert evaluate`: how good a model is."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from ..errors import ConfigError
from .evaluators import KINDS, Reading
from .options import Subparsers, add_command, add_model_options, column_names, load_model, table


def add(commands: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "evaluate",
        run,
        about="Measure how good a model is at a task.",
        example="minisbert evaluate all-MiniLM-L6-v2 --sts stsb_dev.tsv.gz",
    )
    parser.add_argument("model", help="model folder or name")
    group = parser.add_argument_group("what it is evaluated on").add_mutually_exclusive_group(required=True)
    for name, kind in KINDS.items():
        group.add_argument(f"--{name}", type=Path, metavar=kind.metavar, help=kind.about)
    parser.add_argument("--columns", type=column_names, help="the columns to use, in order, such as text,text,score")
    parser.add_argument("--split", help="with --retrieval: which qrels to use (default: test, or the only ones)")
    parser.add_argument("--no-titles", action="store_true", help="with --retrieval: leave out the documents' titles")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_model_options(parser)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    name = next(name for name in KINDS if getattr(options, name) is not None)
    if name != "retrieval" and (options.split is not None or options.no_titles):
        raise ConfigError(f"got --split or --no-titles with --{name}; expected them with --retrieval: leave them out")
    path: Path = getattr(options, name)
    evaluator, rows = KINDS[name].make(path, Reading(options.columns, options.split, not options.no_titles))
    metrics = evaluator(load_model(options, options.model))
    if options.json:
        known = {name: value if math.isfinite(value) else None for name, value in metrics.items()}  # JSON has no NaN
        print(json.dumps({"model": options.model, "data": str(path), "rows": rows, **known}))
    else:
        print(table([("metric", "value"), *((name, f"{value:.6f}") for name, value in metrics.items())]))
