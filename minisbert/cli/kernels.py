"""`minisbert kernels`: which implementation of each operation runs here, and building the C++ kernels."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from .options import Subparsers, add_command, table


def add(commands: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "kernels",
        run,
        about="Show which implementation of each operation runs on this machine; build the C++ kernels.",
        example="minisbert kernels --build",
    )
    parser.add_argument("--build", action="store_true", help="compile the C++ kernels for this machine (needs g++)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> None:
    """Build if asked, and print what runs."""
    from ..kernels import build, current_mode

    if TYPE_CHECKING:
        from kernels.cpu_ops import report
    else:
        from ..kernels.cpu_ops import report

    if options.build:
        sys.stderr.write(f"built {build.build()}\n")
    facts, rows = report.machine(current_mode()), report.choices(current_mode())
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
