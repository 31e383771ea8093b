"""Which version of each operation this machine takes, and why."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import torch

from ..errors import ConfigError
from . import current_mode

_FUSED = ("attention", "add_norm", "gelu", "mean_pool", "adamw_rows")
_ENCODERS = ("float32", "bfloat16", "int8")


class Choice(NamedTuple):
    """The version of an operation that runs on the CPU, and why."""

    operation: str
    version: str
    reason: str


def machine() -> dict[str, Any]:
    """What decides: the mode, the instruction set, oneDNN, bfloat16, and the library of fused operations."""
    build = importlib.import_module("minisbert.kernels.cpu_ops.build")
    linear = importlib.import_module("minisbert.kernels.cpu_ops.onednn")
    return {
        "mode": current_mode(),
        "instruction set": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "onednn": torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
        "bfloat16 in hardware": linear.bfloat16_available(),
        "fused operations": _obstacle() or "built",
        "library": str(build.location()),
        "built by": build.build_record(build.location()).get("compiler"),
        "compiler": build.compiler(),
    }


def choices() -> list[Choice]:
    """The version of each operation, for the CPU."""
    names = ("linear", *_FUSED, *(f"encoder {kind}" for kind in _ENCODERS))
    if current_mode() == "reference":
        return [Choice(name, "torch", "the mode is reference") for name in names]
    linear = importlib.import_module("minisbert.kernels.cpu_ops.onednn")
    obstacle = _obstacle()
    return [
        Choice("linear", "onednn", "faster than MKL on this processor")
        if linear.available()
        else Choice("linear", "torch", "MKL suits this processor, or torch has no oneDNN"),
        *(
            Choice(name, "fused", "built for this machine")
            if obstacle is None
            else Choice(name, "torch", f"the fused one: {obstacle}")
            for name in _FUSED
        ),
        *(_encoder(kind, obstacle) for kind in _ENCODERS),
    ]


def _encoder(kind: str, obstacle: str | None) -> Choice:
    """How an encoder runs in inference."""
    linear = importlib.import_module("minisbert.kernels.cpu_ops.onednn")
    native = importlib.import_module("minisbert.kernels.cpu_ops.native")
    int8 = importlib.import_module("minisbert.kernels.cpu_ops.int8")
    if obstacle is None and native.available(getattr(torch, kind)):
        return Choice(f"encoder {kind}", "native", "built for this machine")
    reason = f"the native one: {obstacle or 'this processor has no such product, or oneDNN a better one'}"
    onednn = {"float32": linear.available(), "bfloat16": linear.bfloat16_available(), "int8": int8.available()}[kind]
    return Choice(f"encoder {kind}", "onednn" if onednn else "torch", reason)


def _obstacle() -> str | None:
    """Why the fused operations cannot run, or None where they can."""
    build = importlib.import_module("minisbert.kernels.cpu_ops.build")
    try:
        return None if build.library() is not None else str(build.refusal())
    except ConfigError as error:
        return str(error)
