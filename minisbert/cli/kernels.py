"""`minisbert kernels`: which implementation of each operation runs on this CPU, and building the C++ kernels."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, NamedTuple

from ..errors import ConfigError
from .options import Subparsers, add_command, table


class Choice(NamedTuple):
    """The implementation of an operation, and why it runs."""

    operation: str
    version: str
    reason: str


def add(commands: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(commands, "kernels", run, example="minisbert kernels --build")
    parser.add_argument("--build", action="store_true", help="compile the C++ kernels for this machine (needs g++)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> None:
    """Show which implementation of each operation runs on this machine; build the C++ kernels."""
    from ..kernels import build

    if options.build:
        sys.stderr.write(f"built {build.build()}\n")
    facts, rows = machine(), choices()
    if options.json:
        print(json.dumps({"machine": facts, "operations": [row._asdict() for row in rows]}, indent=2))
        return
    print(table([[name, _shown(value)] for name, value in facts.items()], numbers=False))
    print()
    print(table([["operation", "version", "why"], *rows], numbers=False))


def machine() -> dict[str, Any]:
    """Return the facts that decide: the mode, the instruction set, oneDNN, bfloat16 and the library of C++ kernels."""
    import torch

    from ..kernels import build, current_mode, onednn

    library = build.location()
    return {
        "mode": current_mode(),
        "instruction set": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "onednn": torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
        "bfloat16 in hardware": onednn.bfloat16_available(),
        "fused operations": _obstacle() or "built",
        "library": str(library),
        "built by": build.build_record(library).get("compiler"),
        "compiler": build.compiler(),
    }


def choices() -> list[Choice]:
    """Return the implementation of each operation in this mode."""
    import torch

    from ..kernels import current_mode, native, onednn

    fused = ("attention", "add_norm", "gelu", "mean_pool", "adamw_rows")
    encoders = {
        "float32": onednn.available(),
        "bfloat16": onednn.bfloat16_available(),
        "int8": onednn.int8_available(),
    }
    if current_mode() == "reference":
        names = ("linear", *fused, *(f"encoder {dtype}" for dtype in encoders))
        return [Choice(name, "torch", "the mode is reference") for name in names]
    obstacle, built = _obstacle(), "built for this machine"
    faster = onednn.available()
    product = ("onednn", "faster than MKL on this processor") if faster else ("torch", "MKL suits this processor")
    kernel = ("torch", f"C++ kernels: {obstacle}") if obstacle else ("fused", built)
    rows = [Choice("linear", *product), *(Choice(name, *kernel) for name in fused)]
    for dtype, offered in encoders.items():
        if obstacle is None and native.available(getattr(torch, dtype)):
            rows.append(Choice(f"encoder {dtype}", "native", built))
        else:
            reason = obstacle or "this processor has no such product, or oneDNN a better one"
            rows.append(Choice(f"encoder {dtype}", "onednn" if offered else "torch", f"C++ kernels: {reason}"))
    return rows


def _obstacle() -> str | None:
    """Return why the C++ kernels cannot run, or None if they can."""
    from ..kernels import build

    try:
        return None if build.library() is not None else str(build.refusal())
    except ConfigError as error:
        return str(error)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
