"""`minisbert kernels`: which version of each operation runs here, and building the fused ones."""

from __future__ import annotations

import argparse
import json
import sys

from .options import Subparsers, add_command, table


def add(commands: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "kernels",
        run,
        about="Show which version of each operation this machine takes; build the fused ones.",
        example="minisbert kernels --build",
    )
    parser.add_argument("--build", action="store_true", help="compile the fused operations here (needs g++)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> None:
    """Do it."""
    import importlib

    from ..kernels.report import choices, machine

    if options.build:
        build = importlib.import_module("minisbert.kernels.cpu_ops.build")
        sys.stderr.write(f"built {build.build()}\n")
    facts = machine()
    rows = choices()
    if options.json:
        print(json.dumps({"machine": facts, "operations": [row._asdict() for row in rows]}, indent=2))
        return
    print(table([[name, _shown(value)] for name, value in facts.items()], numbers=False))
    print()
    print(table([["operation", "version", "why"], *rows], numbers=False))


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
