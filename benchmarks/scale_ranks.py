"""Training in several processes: steps per second and memory of ranks under PyTorch's launcher.

Each run is a fresh set of processes: two of one thread each, started by `torch.distributed.run`, or one of two threads.
A step of either has the same number of pairs, and every pair is compared with all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import timing
import workloads
from commands.memory import status
from commands.train import SEED, WARM_UP, train
from machine import table

RANKS = 2
LOSS = "MultipleNegativesRankingLoss"


class Way(NamedTuple):
    """The library, the processes it trains in, and the losses' options."""

    side: str
    ranks: int


WAYS = {
    "one process": Way("minisbert fp32", 1),
    "two ranks": Way("minisbert fp32", RANKS),
    "sentence-transformers, two ranks": Way("sentence-transformers fp32", RANKS),
}
ONE, OURS, REFERENCE = WAYS
STEPS = {64: 8, 8: 32}  # pairs of a step of all ranks together, to the steps that are timed
QUICK = {8: 2}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train each way in turn, as often as there are rounds, from the same start on the same rows."""
    found = {}
    for pairs, steps in (QUICK if options.quick else STEPS).items():
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for number in range(options.rounds):
            for way in timing.order(list(WAYS), number):
                runs[way].append(_run(way, pairs, steps, options))
        found[str(pairs)] = {way: _together(several, runs) for way, several in runs.items()}
    return {"threads": RANKS, "pairs": found}


def table_of(result: dict[str, Any]) -> str:
    """For people."""
    rows: list[tuple[Any, ...]] = [("pairs in a step", "", "steps/s", "x one process", "x reference", "MB of a rank")]
    for pairs, ways in result["pairs"].items():
        for way, one in ways.items():
            if "not_available" in one:
                rows.append((pairs, way, f"not available: {one['not_available']}", "", "", ""))
                continue
            ratios = (one["times_as_fast_as"].get(other) for other in (ONE, REFERENCE))
            shown = (
                f"{ratio['median']:.2f} ({ratio['low']:.2f} - {ratio['high']:.2f})" if ratio else "" for ratio in ratios
            )
            rows.append((pairs, way, f"{1 / one['seconds']['median']:.2f}", *shown, f"{one['peak_mb']:,.0f}"))
    return table(rows)


def _together(runs: list[dict[str, Any]], others: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Seconds of a step and the largest peak of a rank, and ratios to the other ways from equal rounds."""
    for run in runs:
        if "not_available" in run:
            return run
    seconds = [run["seconds"] for run in runs]
    return {
        "seconds": timing.spread(seconds),
        "times_as_fast_as": {
            other: timing.times_as_fast(seconds, [run["seconds"] for run in several])
            for other, several in others.items()
            if several is not runs and not any("not_available" in run for run in several)
        },
        "peak_mb": max(run["peak_mb"] for run in runs),
        "first_loss": runs[0]["first_loss"],
        "last_loss": runs[0]["last_loss"],
    }


def _run(way: str, pairs: int, steps: int, options: argparse.Namespace) -> dict[str, Any]:
    """Start the processes of a way; return what they found, or the last message as "not_available"."""
    ranks = WAYS[way].ranks
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    root = Path(__file__).parents[1]
    path = os.pathsep.join([str(root / "benchmarks"), str(root), os.environ.get("PYTHONPATH", "")])
    threads = str(RANKS // ranks)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *launcher, "-m", "scale_ranks", way, pairs, steps, folder, options.data or ""]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)
        found = [json.loads(file.read_text()) for file in Path(folder).glob("*.json")]
    if done.returncode or len(found) != ranks:
        return {"not_available": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]}
    timed = next(one for one in found if "seconds" in one)
    return {**timed, "peak_mb": max(one["peak_mb"] for one in found)}


def _train(way: str, pairs: int, steps: int, folder: Path, data: Path | None) -> None:
    """In a rank: train, and write what it found to a file of its own."""
    import torch

    side, ranks = WAYS[way]
    torch.set_num_threads(RANKS // ranks)
    rows = workloads.rows(data, pairs * (steps + WARM_UP))
    settings = {"max_steps": steps + WARM_UP, "batch_size": pairs // ranks, "learning_rate": 2e-5, "seed": SEED}
    course, _ = train(side, LOSS, rows, settings, loss_options={"gather_across_devices": True} if ranks > 1 else {})
    found: dict[str, Any] = {"peak_mb": status("VmHWM")}
    if int(os.environ.get("RANK", 0)) == 0:
        found |= {
            "seconds": course.seconds / steps,
            "first_loss": round(course.losses[0], 4),
            "last_loss": round(course.losses[-1], 4),
        }
    (folder / f"{os.environ.get('RANK', 0)}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    _, _way, _pairs, _steps, _folder, _data = sys.argv
    _train(_way, int(_pairs), int(_steps), Path(_folder), Path(_data) if _data else None)
