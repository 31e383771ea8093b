"""`minisbert kernels`: which implementation of each operation runs on this CPU, and why."""

from __future__ import annotations

import argparse
import json
from typing import Any, NamedTuple

from .options import Subparsers, add_command, table


class Choice(NamedTuple):
    """The implementation of an operation, and why it runs."""

    operation: str
    version: str
    reason: str


def add(commands: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(commands, "kernels", run, example="minisbert kernels")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> None:
    """Show which implementation of each operation runs on this machine, and why."""
    facts, rows = machine(), choices()
    if options.json:
        print(json.dumps({"machine": facts, "operations": [row._asdict() for row in rows]}, indent=2))
        return
    print(table([[name, _shown(value)] for name, value in facts.items()], numbers=False))
    print()
    print(table([["operation", "version", "why"], *rows], numbers=False))


def machine() -> dict[str, Any]:
    """Return the facts that decide: the mode, oneDNN, bfloat16, and the C++ kernels with their instruction sets."""
    import torch

    from ..kernels import current_mode, library, onednn

    return {
        "mode": current_mode(),
        "threads": torch.get_num_threads(),
        "onednn": torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
        "bfloat16 in hardware": onednn.bfloat16_available(),
        "C++ kernels": library.level() or library.refusal(),
        "levels that run here": ", ".join(library.levels()) or None,
        "library": str(library.FILE) if library.levels() else None,
    }


def choices() -> list[Choice]:
    """Return the implementation of each operation in this mode."""
    import torch

    from ..kernels import current_mode, library, native, onednn

    fused = ("attention", "add_norm", "gelu", "dropout", "mean_pool", "adamw_rows")
    trained = ("float32", "bfloat16")
    encoders = {
        "float32": onednn.available(),
        "bfloat16": onednn.bfloat16_available(),
        "int8": onednn.available(),
    }
    if current_mode() == "reference":
        wholes = (*(f"encoder {dtype}" for dtype in encoders), *(f"training {dtype}" for dtype in trained))
        names = ("linear", *fused, *wholes)
        return [Choice(name, "torch", "the mode is reference") for name in names]
    obstacle, runs = library.refusal(), f"the level {library.level()}"
    faster = onednn.available()
    product = ("onednn", "faster than MKL on this processor") if faster else ("torch", "MKL suits this processor")
    kernel = ("torch", f"C++ kernels: {obstacle}") if obstacle else ("fused", runs)
    rows = [Choice("linear", *product), *(Choice(name, *kernel) for name in fused)]
    for dtype, offered in encoders.items():
        if obstacle is None and native.available(getattr(torch, dtype)):
            rows.append(Choice(f"encoder {dtype}", "native", runs))
        else:
            reason = obstacle or "this processor has no such product, or oneDNN a better one"
            rows.append(Choice(f"encoder {dtype}", "onednn" if offered else "torch", f"C++ kernels: {reason}"))
    for dtype in trained:
        if obstacle is None and native.available(getattr(torch, dtype)):
            rows.append(Choice(f"training {dtype}", "native", f"all layers at once, {runs}"))
        else:
            reason = obstacle or "this processor has no such product, or oneDNN a better one"
            rows.append(Choice(f"training {dtype}", "single operations", f"C++ kernels: {reason}"))
    return rows


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
