"""`minisbert evaluate`: how good a model is."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from ..errors import ConfigError
from .evaluators import KINDS
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
    for kind, (_, metavar, about) in KINDS.items():
        group.add_argument(f"--{kind}", type=Path, metavar=metavar, help=about)
    parser.add_argument("--columns", type=column_names, help="the columns to use, in order, such as text,text,score")
    parser.add_argument("--split", help="with --retrieval: which qrels to use (default: test, or the only ones)")
    parser.add_argument("--no-titles", action="store_true", help="with --retrieval: leave out the documents' titles")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_model_options(parser)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    kind = next(kind for kind in KINDS if getattr(options, kind) is not None)
    if kind != "retrieval" and (options.split is not None or options.no_titles):
        raise ConfigError(f"got --split or --no-titles with --{kind}; expected them with --retrieval: leave them out")
    path: Path = getattr(options, kind)
    evaluator, rows = KINDS[kind][0](path, options)
    metrics = evaluator(load_model(options, options.model))
    if options.json:
        known = {name: value if math.isfinite(value) else None for name, value in metrics.items()}  # JSON has no NaN
        print(json.dumps({"model": options.model, "data": str(path), "rows": rows, **known}))
    else:
        print(table([("metric", "value"), *((name, f"{value:.6f}") for name, value in metrics.items())]))
