"""Everything on one CUDA device: encoding, the model alone, training, memory and operations, beside the limits."""

from __future__ import annotations

import argparse
from typing import Any

from gpu import encoding, memory, operations, training
from machine import gpu, table

from commands import kernels

TRIAL = "a trial of the script on the CPU: its times say nothing of a GPU, and are not kept"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure each part in turn."""
    if options.device == "cpu":
        print(TRIAL, flush=True)
    return {
        **({"trial": TRIAL} if options.device == "cpu" else {"gpu": gpu()}),
        "encode": encoding.measure(options),
        "train": training.measure(options),
        "memory": memory.measure(options),
        "kernels": operations.measure(options),
    }


def table_of(result: dict[str, Any]) -> str:
    """What comes after the tables of the length classes and of the training."""
    encoded, run = result["encode"], result["kernels"]
    missing = {**encoded["not_available"], **run["not_available"]}
    lines = [f"{name} is not available: {reason}" for name, reason in missing.items()]
    lines += [f"limit of {name} not measured: {reason}" for name, reason in encoded["limits_not_available"].items()]
    lines += [
        f"limit {precision}: {best['gflops']:,.0f} GFLOP/s ({best['by']})"
        for precision, best in encoded["limits"].items()
    ]
    lines.append(f"copying: {encoded['copy_gigabytes_per_second']:,.0f} GB/s, read and written")
    return "\n".join([*lines, "", _memory_table(result["memory"]), "", kernels.table_of(run)])


def _memory_table(found: dict[str, Any]) -> str:
    title = f"MultipleNegativesRanking, batch {found['batch_size']:,}"
    if "not_run" in found:
        return f"{title}: not run: {found['not_run']}"
    rows = [(name, _peak(one)) for name, one in found["parts"].items()]
    return table([(f"{title}, {found['tokens']:,} tokens", "peak"), *rows])


def _peak(one: dict[str, Any]) -> str:
    if "not_available" in one:
        return f"not available: {one['not_available']}"
    return f"{one['peak_mb']:,.0f} MB" if one["peak_mb"] is not None else "not measured on a CPU"
