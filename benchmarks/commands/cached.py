"""Peak memory and time of a training step by batch size: the plain loss, the gradient cache, and the reference's.

Each run is a process of its own, so that its peak (VmHWM) is its own too.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import timing
import workloads
from machine import table

from commands.memory import fresh, status
from commands.train import SEED, train
from minisbert.losses import CachedMultipleNegativesRankingLoss

# By name: the side as `train` calls it, and the loss. All are in float32.
WAYS = {
    "minisbert, plain": ("minisbert fp32", "MultipleNegativesRankingLoss"),
    "minisbert, cached": ("minisbert fp32", "CachedMultipleNegativesRankingLoss"),
    "sentence-transformers, cached": ("sentence-transformers fp32", "CachedMultipleNegativesRankingLoss"),
}
OURS = "minisbert, cached"


class Size(NamedTuple):
    """A batch size, with how often at most it is run, the ways, and the steps that are timed, after one that is not."""

    pairs: int
    rounds: int
    ways: tuple[str, ...] = tuple(WAYS)
    steps: int = 1


SIZES = (Size(64, 3, steps=2), Size(256, 2), Size(1024, 1), Size(8192, 1, (OURS,)))
QUICK_SIZES = (Size(16, 2), Size(64, 1, (OURS,)))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start a process for each way and each batch size, in turn, as often as there are rounds."""
    found: dict[str, dict[str, Any]] = {}
    for size in QUICK_SIZES if options.quick else SIZES:
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in size.ways}
        for number in range(min(options.rounds, size.rounds)):
            for way in timing.order(size.ways, number):
                data = options.data or ""
                runs[way].append(fresh("commands.cached", way, size.pairs, size.steps, options.threads, data))
        found[str(size.pairs)] = {way: _together(several) for way, several in runs.items()}
    return {"mini_batch_size": CachedMultipleNegativesRankingLoss.mini_batch_size, "batches": found}


def table_of(result: dict[str, Any]) -> str:
    """For people."""
    rows: list[tuple[Any, ...]] = [("pairs in a batch", "", "MB when loaded", "MB at the peak", "s/step", "last loss")]
    for batch, ways in result["batches"].items():
        for way, one in ways.items():
            if "not_available" in one:
                rows.append((batch, way, f"not available: {one['not_available']}", "", "", ""))
                continue
            memory = (f"{one[part]:,.0f}" for part in ("loaded", "peak"))
            rows.append((batch, way, *memory, f"{one['seconds']['median']:.2f}", one["last_loss"]))
    return table(rows)


def _together(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The largest peak, and the spread of the time of a step, of runs of one way."""
    for run in runs:
        if "not_available" in run:
            return run
    return {
        "loaded": max(run["loaded"] for run in runs),
        "peak": max(run["peak"] for run in runs),
        "seconds": timing.spread([run["seconds"] for run in runs]),
        "rounds": len(runs),
        "last_loss": runs[0]["last_loss"],
    }


def _train(way: str, batch: int, steps: int, threads: int, data: Path | None) -> dict[str, Any]:
    """In the fresh process: MB before training and at the peak, and seconds of a step."""
    import torch

    torch.set_num_threads(threads)
    side, loss = WAYS[way]
    if side.startswith("sentence-transformers"):
        import datasets  # noqa: F401  # so that what is loaded before training is that of its own library
        import sentence_transformers  # noqa: F401
    count = batch * (steps + 1)
    rows = workloads.repeated_rows(count, workloads.rows(data, count))
    settings = {"max_steps": steps + 1, "batch_size": batch, "learning_rate": 2e-5, "seed": SEED}
    loaded = status("VmRSS")
    course, _ = train(side, loss, rows, settings)
    return {
        "loaded": loaded,
        "peak": status("VmHWM"),
        "seconds": (course.ends[-1] - course.ends[0]) / steps,
        "last_loss": round(course.losses[-1], 4),
    }


if __name__ == "__main__":
    _, _way, _batch, _steps, _threads, _data = sys.argv
    print(json.dumps(_train(_way, int(_batch), int(_steps), int(_threads), Path(_data) if _data else None)))
