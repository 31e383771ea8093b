"""A model under load: many threads, forked and spawned processes, many texts, workers of a pool that are killed.

Each trial is a process of its own, `load_trials.py`, so that one that hangs can be ended and is counted as lost.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from trials import Trial

ROOT = Path(__file__).resolve().parents[3]
TRIALS = Path(__file__).with_name("load_trials.py")
TEXTS, QUICK_TEXTS = 1_000_000, 100_000
_SECONDS = 180  # for a trial; those over many texts have longer


def run(options: argparse.Namespace) -> list[Trial]:
    """Try everything; with `quick` each thing less often and over fewer texts."""
    draw = random.Random(options.seed)
    texts, times, kills = (QUICK_TEXTS, 2, 2) if options.quick else (TEXTS, 10, 20)
    patience = max(_SECONDS, texts // 500)
    plain = {"MINISBERT_ISA": "none"}
    return [
        _trial("8 threads, one model", "threads", times, draw),
        _trial("8 threads, one model, no C++ kernels", "threads", times, draw, environment=plain),
        _trial("forked child after encode", "fork", times, draw),
        _trial("forked child after encode, no C++ kernels", "fork", times, draw, environment=plain),
        _trial("spawned child", "spawn", times, draw),
        _trial(f"{texts:,} texts in flat memory, encode_iter", "stream", 1, draw, count=texts, patience=patience),
        _trial(f"{texts:,} texts in flat memory, out=", "memory_map", 1, draw, count=texts, patience=patience),
        _trial("pool worker killed while it starts", "kill_at_start", kills, draw),
        _trial("pool worker killed at work", "kill_at_work", kills, draw),
        _trial("pool worker killed between calls", "kill_between", kills, draw),
    ]


def _trial(
    what: str,
    trial: str,
    times: int,
    draw: random.Random,
    *,
    count: int = 0,
    patience: int = _SECONDS,
    environment: dict[str, str] | None = None,
) -> Trial:
    command = [sys.executable, str(TRIALS), trial, str(count)]
    losses = [_lost([*command, str(draw.randrange(2**31))], patience, environment or {}) for _ in range(times)]
    return Trial(what, times, losses.count(""), next(filter(None, losses), "nothing"))


def _lost(command: list[str], seconds: int, environment: dict[str, str]) -> str:
    """What went wrong in one trial, or ""."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryFile("w+") as said:  # no pipe, which a process that is left over would keep open
        process = subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "PYTHONPATH": paths, **environment},
        )  # fmt: skip
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"no end within {seconds} s"
        said.seek(0)
        lines = said.read().strip().splitlines()
    return "" if status == 0 else f"exit status {status}: {lines[-1] if lines else 'no word'}"
