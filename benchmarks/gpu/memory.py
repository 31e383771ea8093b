"""Peak memory of the device: of any run, and of one step with very many pairs."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import workloads
from commands.train import SEED, lengths_of, train

from gpu.sizes import sizes_for
from minisbert import losses

Result = TypeVar("Result")
LEAST = 64e9  # bytes of the device, or the large step is not tried
DIM = 384


def peak_of(run: Callable[[], Result], device: str) -> tuple[Result, float | None]:
    """What a run returns, and the most memory in MB that it held beyond what was held before; None on a CPU."""
    if device == "cpu":
        return run(), None
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = run()
    return result, (torch.cuda.max_memory_allocated(device) - before) / 1e6


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """A step of minisbert's Trainer with very many pairs, and its loss alone, forward and backward."""
    device, batch = options.device, sizes_for(options).memory_batch
    if device != "cpu" and (room := torch.cuda.get_device_properties(device).total_memory) < LEAST:
        return {
            "batch_size": batch,
            "not_run": f"needs {LEAST / 1e9:.0f} GB of device memory; here are {room / 1e9:.0f}",
        }
    rows = workloads.short_rows(options.data, batch)
    settings = {"max_steps": 1, "batch_size": batch, "learning_rate": 2e-5, "seed": SEED}

    def step() -> None:
        train("minisbert bf16", "MultipleNegativesRankingLoss", rows, settings, device=device)

    parts: dict[str, Callable[[], None]] = {
        "one step of the Trainer, bf16": step,
        "the loss alone, fp32": lambda: _loss_alone(batch, device),
    }
    return {
        "batch_size": batch,
        "tokens": sum(lengths_of(rows)),
        "parts": {k: _peak(v, device) for k, v in parts.items()},
    }


def _peak(run: Callable[[], None], device: str) -> dict[str, Any]:
    try:
        return {"peak_mb": peak_of(run, device)[1]}
    except Exception as error:  # too little memory is a result too
        return {"not_available": f"{type(error).__name__}: {error}".splitlines()[0]}


def _loss_alone(pairs: int, device: str) -> None:
    columns = [torch.randn(pairs, DIM, device=device, requires_grad=True) for _ in range(2)]
    losses.MultipleNegativesRankingLoss()(columns).backward()
