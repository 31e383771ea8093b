"""How long one short text takes, call by call, as a search box meets it; also while another process is busy."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import timing
from contenders import REFERENCE, Contender, make_all
from machine import table
from speed_tables import PEERS_OF

# 10 to 20 tokens each.
TEXTS = [
    "How do I read a large file line by line?",
    "What is the difference between a list and a tuple in Python?",
    "cheap hotels near the central station with free breakfast",
    "Why does my dog eat grass when he is not hungry?",
    "symptoms of vitamin D deficiency in adults over fifty",
]
BLOCK = 10  # calls of one contender before the next one's turn; as many come before them and do not count
CALLS, QUICK_CALLS = 210, 20


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Call each contender in turn, a block of calls at a time; then again beside a busy process."""
    made, missing = make_all(options.threads)
    calls = QUICK_CALLS if options.quick else CALLS
    time.sleep(0 if options.quick else 2)  # threads that wait actively go to sleep
    alone = compare(made, calls)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        beside = compare(made, calls)
        busy.kill()
    return {"texts": TEXTS, "calls": calls, "contenders": alone, "one core busy": beside, "not_available": missing}


def compare(made: Mapping[str, Contender], calls: int) -> dict[str, Any]:
    """Time the calls."""
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for number in range(calls // BLOCK):
        for name in timing.order(list(made), number):
            seconds[name] += made[name].seconds(TEXTS, 2 * BLOCK)[BLOCK:]
    blocks = {name: _medians(taken) for name, taken in seconds.items()}
    return {
        name: {
            "p50": timing.percentile(taken, 0.5),
            "p90": timing.percentile(taken, 0.9),
            **({"times_as_fast": timing.times_as_fast(blocks[name], blocks[REFERENCE])} if REFERENCE in made else {}),
            "share_of_time": {
                other: timing.times_as_fast(blocks[other], blocks[name])
                for other in PEERS_OF.get(name, ())
                if other in made
            },
        }
        for name, taken in seconds.items()
    }


def table_of(result: dict[str, Any]) -> str:
    """For people."""
    rows: list[tuple[Any, ...]] = [("one text", "p50", "p90", "x reference", "busy: p50", "p90", "time of a peer's")]
    for name, one in result["contenders"].items():
        fast, beside = one.get("times_as_fast"), result["one core busy"][name]
        times = (f"{each[part] * 1000:.2f} ms" for each in (one, beside) for part in ("p50", "p90"))
        p50, p90, busy_p50, busy_p90 = times
        shares = (f"{other} {share['median']:.2f}" for other, share in one["share_of_time"].items())
        rows.append((name, p50, p90, f"{fast['median']:.2f}" if fast else "", busy_p50, busy_p90, ", ".join(shares)))
    lines = [f"{name} is not available: {reason}" for name, reason in result["not_available"].items()]
    return "\n".join([table(rows), *lines])


def _medians(seconds: list[float]) -> list[float]:
    """Of each block of calls."""
    return [timing.spread(seconds[start : start + BLOCK])["median"] for start in range(0, len(seconds), BLOCK)]
