"""The implementation of each operation on this CPU, and the reason for it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from minisbert.errors import ConfigError

from . import build, native, onednn

_FUSED = ("attention", "add_norm", "gelu", "mean_pool", "adamw_rows")


class Choice(NamedTuple):
    """The implementation of an operation, and why it runs."""

    operation: str
    version: str
    reason: str


def machine(mode: str) -> dict[str, Any]:
    """Return the facts that decide: the mode, the instruction set, oneDNN, bfloat16 and the library of C++ kernels."""
    library = build.location()
    return {
        "mode": mode,
        "instruction set": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "onednn": torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
        "bfloat16 in hardware": onednn.bfloat16_available(),
        "fused operations": _obstacle() or "built",
        "library": str(library),
        "built by": build.build_record(library).get("compiler"),
        "compiler": build.compiler(),
    }


def choices(mode: str) -> list[Choice]:
    """Return the implementation of each operation in a mode."""
    products = {
        "float32": onednn.available(),
        "bfloat16": onednn.bfloat16_available(),
        "int8": onednn.int8_available(),
    }
    if mode == "reference":
        names = ("linear", *_FUSED, *(f"encoder {dtype}" for dtype in products))
        return [Choice(name, "torch", "the mode is reference") for name in names]
    obstacle = _obstacle()
    built = Choice("", "fused", "built for this machine")
    plain = Choice("", "torch", f"C++ kernels: {obstacle}")
    rows = [
        Choice("linear", "onednn", "faster than MKL on this processor")
        if products["float32"]
        else Choice("linear", "torch", "MKL suits this processor, or torch has no oneDNN"),
        *((plain if obstacle else built)._replace(operation=name) for name in _FUSED),
    ]
    for dtype, available in products.items():
        if obstacle is None and native.available(getattr(torch, dtype)):
            rows.append(Choice(f"encoder {dtype}", "native", "built for this machine"))
        else:
            reason = f"C++ kernels: {obstacle or 'this processor has no such product, or oneDNN a better one'}"
            rows.append(Choice(f"encoder {dtype}", "onednn" if available else "torch", reason))
    return rows


def _obstacle() -> str | None:
    """Return why the C++ kernels cannot run, or None if they can."""
    try:
        return None if build.library() is not None else str(build.refusal())
    except ConfigError as error:
        return str(error)
