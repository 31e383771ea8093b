"""`minisbert evaluate`: how good a model is."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from .options import Subparsers, add_command, add_model_options, column_names, load_model, sts_evaluator, table


def add(commands: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "evaluate",
        run,
        about="Measure how well a model's similarities agree with human scores.",
        example="minisbert evaluate all-MiniLM-L6-v2 --sts stsb_dev.tsv.gz",
    )
    parser.add_argument("model", help="model folder or name")
    parser.add_argument("--sts", type=Path, required=True, metavar="FILE", help="pairs of texts with a score")
    parser.add_argument("--columns", type=column_names, help="the columns to use: text,text,score")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_model_options(parser)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    evaluator = sts_evaluator(options.sts, options.columns)
    metrics = evaluator(load_model(options, options.model))
    if options.json:
        known = {name: value if math.isfinite(value) else None for name, value in metrics.items()}  # JSON has no NaN
        print(json.dumps({"model": options.model, "data": str(options.sts), "rows": len(evaluator.scores), **known}))
    else:
        print(table([("metric", "value"), *((name, f"{value:.6f}") for name, value in metrics.items())]))
