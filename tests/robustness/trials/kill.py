"""Training that is killed, or asked to stop, at random moments, and resumed until it ends."""

from __future__ import annotations

import argparse
import functools
import random
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import Trial
from .job import Job, ended, logged_step, wait_for_step, weights, works

STEPS = 300
_LONGEST_LIFE = 1.0  # seconds from the beginning of work; a whole run takes some five
_STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130}


@dataclass
class Killed:
    """What became of a run that was killed again and again.

    Attributes:
        kills: how often.
        in_save: how many of them came while a checkpoint was being written or removed.
        lost_steps: for each, how many steps had to be done again.
        fault: what went wrong, if anything did.
    """

    kills: int = 0
    in_save: int = 0
    lost_steps: list[int] = field(default_factory=list)
    fault: str = ""


def run(options: argparse.Namespace) -> list[Trial]:
    """Of all signals."""
    draw = random.Random(options.seed)
    kills, stops = (5, 1) if options.quick else (100, 10)
    with tempfile.TemporaryDirectory(prefix="minisbert-kill-") as place:
        job = Job(Path(place), steps=STEPS)
        if job.finish(Path(place) / "undisturbed").status:
            raise SystemExit("training fails even when it is left alone")
        expected = weights(Path(place) / "undisturbed")
        runs = list(_runs(job, Path(place), kills, draw, expected))
        trials = [
            _trial(runs),
            Trial("its runs, to the bit those left alone", len(runs), _faultless(runs), _faults(runs)),
        ]
        for number in _STATUS:
            found = [_stopped(job, Path(place) / f"{number}-{i}", number, draw, expected) for i in range(stops)]
            faults = "; ".join(sorted({fault for fault in found if fault})) or "nothing"
            trials.append(Trial(f"{number.name}, then resumed, to the bit", stops, found.count(""), faults))
    return trials


def until_it_ends(
    job: Job, output: Path, *, kills: int, draw: random.Random, longest_life: float = _LONGEST_LIFE
) -> Killed:
    """Start a run, kill it at most `kills` times, resume it each time, and see it end."""
    found = Killed()
    while True:
        process = job.start(output)
        said = job.wait_for_work(process)
        if works(said) and found.kills < kills:
            if _ends_within(process, draw.uniform(0, longest_life)):
                found.fault = _fault(process)
                return found
            process.kill()
            ended(process)
            found.kills += 1
            kept = [int(path.name.split("-")[1]) for path in output.glob("checkpoint-*")]
            found.lost_steps.append(logged_step(output) - max(kept, default=0))
            found.in_save += any(re.match(r"\.+checkpoint", path.name) for path in output.iterdir())
        else:
            found.fault = _fault(process, said)
            return found


def _runs(job: Job, place: Path, kills: int, draw: random.Random, expected: str) -> Iterator[Killed]:
    while kills > 0:
        output = place / f"killed-{kills}"
        found = until_it_ends(job, output, kills=kills, draw=draw)
        kills -= found.kills
        if not found.fault and weights(output) != expected:
            found.fault = "other weights"
        if not found.fault and (
            left := [path.name for path in (*output.iterdir(), *place.glob(".*")) if path.name.startswith(".")]
        ):
            found.fault = f"left behind: {left[0]}"
        print(f"killed {found.kills} times, {found.in_save} in a save: {found.fault or 'well'}", flush=True)
        yield found
        if found.fault:
            return


def _stopped(job: Job, output: Path, number: signal.Signals, draw: random.Random, expected: str) -> str:
    """What goes wrong when a run is asked to stop, and resumed; "" if nothing does."""
    # What shells start in the background ignores Ctrl-C.
    process = job.start(output, before=functools.partial(signal.signal, number, signal.SIG_DFL))
    wait_for_step(output, draw.randint(1, STEPS // 2))
    process.send_signal(number)
    stopped = ended(process)
    if stopped.status != _STATUS[number]:
        return f"status {stopped.status}: {stopped.lines[-1:]}"
    if not re.search(r"checkpoint-\d+ holds all that is needed to go on: .* --resume$", stopped.lines[-1]):
        return f"it said {stopped.lines[-1]!r}"
    again = job.finish(output)
    if again.status or logged_step(output) != STEPS:
        return f"resumed, it ended with status {again.status}: {again.lines[-1:]}"
    return "" if weights(output) == expected else "other weights"


def _ends_within(process: subprocess.Popen[str], seconds: float) -> bool:
    time.sleep(seconds)  # and not wait(), which looks only from time to time
    return process.poll() is not None


def _fault(process: subprocess.Popen[str], said: str = "") -> str:
    status, lines = ended(process)
    return f"status {status}: {(lines or [said])[-1]}" if status else ""


def _trial(runs: list[Killed]) -> Trial:
    count, well = sum(one.kills for one in runs), sum(one.kills for one in runs if not one.fault)
    steps = [steps for one in runs for steps in one.lost_steps]
    in_save = sum(one.in_save for one in runs)
    lost = f"at most {max(steps, default=0)} steps, done again"
    return Trial(f"SIGKILL, {in_save} of them in a save, then resumed", count, well, lost)


def _faultless(runs: list[Killed]) -> int:
    return sum(not one.fault for one in runs)


def _faults(runs: list[Killed]) -> str:
    return "; ".join(sorted({one.fault for one in runs if one.fault})) or "nothing"
