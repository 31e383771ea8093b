"""How long one short text takes, call by call."""

from __future__ import annotations

import argparse
import time
from typing import Any

import timing
from contenders import REFERENCE, make_all
from machine import table

TEXT = ["How do I read a large file line by line?"]
BLOCK = 10  # calls of one contender before the next one's turn
CALLS, QUICK_CALLS = 210, 20


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Call each contender in turn, a block of calls at a time."""
    made, missing = make_all(options.threads)
    calls = QUICK_CALLS if options.quick else CALLS
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for one in made.values():
        for _ in range(2 * BLOCK):
            one.encode(TEXT, 1)
    for number in range(calls // BLOCK):
        for name in timing.order(list(made), number):
            for _ in range(BLOCK):
                start = time.perf_counter()
                made[name].encode(TEXT, 1)
                seconds[name].append(time.perf_counter() - start)
    blocks = {name: _medians(taken) for name, taken in seconds.items()}
    return {
        "text": TEXT[0],
        "calls": calls,
        "contenders": {
            name: {
                "p50": timing.percentile(taken, 0.5),
                "p90": timing.percentile(taken, 0.9),
                **(
                    {"times_as_fast": timing.times_as_fast(blocks[name], blocks[REFERENCE])}
                    if REFERENCE in made
                    else {}
                ),
            }
            for name, taken in seconds.items()
        },
        "not_available": missing,
    }


def table_of(result: dict[str, Any]) -> str:
    """For people."""
    rows: list[tuple[Any, ...]] = [("one text", "p50", "p90", "x reference", "low", "high")]
    for name, one in result["contenders"].items():
        fast = one.get("times_as_fast", {})
        ratios = (f"{fast[part]:.2f}" if fast else "" for part in ("median", "low", "high"))
        rows.append((name, f"{one['p50'] * 1000:.2f} ms", f"{one['p90'] * 1000:.2f} ms", *ratios))
    lines = [f"{name} is not available: {reason}" for name, reason in result["not_available"].items()]
    return "\n".join([table(rows), *lines])


def _medians(seconds: list[float]) -> list[float]:
    """Of each block of calls."""
    return [timing.spread(seconds[start : start + BLOCK])["median"] for start in range(0, len(seconds), BLOCK)]
