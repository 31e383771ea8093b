"""`minisbert merge`: merge the weights of models into one."""

from __future__ import annotations

import argparse

from .options import Subparsers, add_command, check_one_process, check_writable, output_path, tell_of_model

_METHODS = ("linear", "slerp", "task_arithmetic", "ties")  # written out, since the help must not import torch


def add(commands: Subparsers) -> None:
    """Add the command."""
    example = "minisbert merge my-model my-other-model --method linear --weight 0.6 0.4 --output merged"
    parser = add_command(commands, "merge", run_merge, example=example)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="model folders or names, of one architecture")
    parser.add_argument("--output", "--out", type=output_path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--method",
        choices=_METHODS,
        default="linear",
        help="linear: the weighted mean; slerp: the arc between two models; task_arithmetic: the base, and the sum of "
        "the weighted changes; ties: the base, and the mean of the largest changes of one sign (default: linear)",
    )
    parser.add_argument(
        "--weight", type=float, nargs="+", metavar="X", help="of each model but the base, or one for all (default: 1)"
    )
    parser.add_argument(
        "--base",
        metavar="MODEL",
        help="the model that the others were trained from, for task_arithmetic and ties; for slerp the model that --t "
        "counts from (default: the first)",
    )
    parser.add_argument(
        "--density",
        type=float,
        nargs="+",
        metavar="X",
        help="share of the changes that ties keeps, of each model but the base, or one for all (default: 1)",
    )
    parser.add_argument(
        "--t", type=float, metavar="X", help="from 0, the base, to 1, the other, for slerp (default: 0.5)"
    )


def run_merge(options: argparse.Namespace) -> None:
    """Merge the weights of models that were trained from one base, and save the result with its own card."""
    from ..recipes import merge

    check_one_process("merge", fix="leave the launcher out")
    check_writable(options.output)
    tell_of_model(options.output)
    weights, density = (value[0] if value and len(value) == 1 else value for value in (options.weight, options.density))
    folder = merge(
        options.models,
        options.output,
        method=options.method,
        weights=weights,
        base=options.base,
        density=density,
        t=options.t,
    )
    print(folder)
