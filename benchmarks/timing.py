"""Interleaved timings, ratios with their spread, and whether the machine is quiet enough for either."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

QUIET = 0.05  # share of the processors that others may take


def interleaved(
    runs: Mapping[str, Callable[[], object]], rounds: int, *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each run in each round. Every second round goes backwards, so that a drift favours nobody."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in order(list(runs), number):
            start = clock()
            runs[name]()
            seconds[name].append(clock() - start)
    return seconds


def clock_of(device: str) -> Callable[[], float]:
    """Seconds, once all the work that a device was given is done."""
    if device == "cpu":
        return time.perf_counter
    import torch

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def order(names: Sequence[str], number: int) -> list[str]:
    """The names, backwards in every second round."""
    return list(names) if number % 2 == 0 else list(reversed(names))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def times_as_fast(seconds: Sequence[float], than: Sequence[float]) -> dict[str, float]:
    """How many times as fast the first is as the second, from the ratios of equal rounds."""
    return spread([theirs / ours for ours, theirs in zip(seconds, than, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, -(-round(len(ranked) * share * 1_000_000) // 1_000_000) - 1)]


def load(seconds: float = 1.0) -> dict[str, Any]:
    """What other processes take of the processors while this one sleeps, and the average load."""
    before = _busy()
    time.sleep(seconds)
    after = _busy()
    others = None
    if before is not None and after is not None and after[1] > before[1]:
        others = round((after[0] - before[0]) / (after[1] - before[1]), 3)
    return {"others": others, "average": round(os.getloadavg()[0], 2), "quiet": others is not None and others <= QUIET}


def warning(found: Mapping[str, Any]) -> str | None:
    """What to tell the reader of numbers that were taken under this load."""
    if found["quiet"]:
        return None
    if found["others"] is None:
        return "warning: cannot tell whether other processes take the processors (no /proc/stat)"
    return f"warning: other processes take {found['others']:.0%} of the processors; the times below are not to be kept"


def _busy() -> tuple[int, int] | None:
    """Ticks that all processors were busy, and all their ticks."""
    file = Path("/proc/stat")
    if not file.is_file():
        return None
    ticks = [int(value) for value in file.read_text().split("\n", 1)[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
