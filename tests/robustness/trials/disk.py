"""Training that meets a full disk, and an output that cannot be written."""

from __future__ import annotations

import argparse
import functools
import hashlib
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import Trial
from .job import Ended, Job, ended, wait_for_step, weights

STEPS = 40
_LIMITS = (10, 1_000, 10_000, 50_000, 100_000)  # bytes of a file: from the log to the optimizer's state
_SMALL = "size=1m"  # room for the checkpoints of a few steps


def run(options: argparse.Namespace) -> list[Trial]:
    """Every fault, from a run that was stopped on its way."""
    with tempfile.TemporaryDirectory(prefix="minisbert-disk-") as name:
        place = Path(name)
        job = Job(place, steps=STEPS)
        job.finish(place / "undisturbed")
        expected = weights(place / "undisturbed")
        _begin(job, place / "begun")
        limits = _LIMITS[::2] if options.quick else _LIMITS
        found = [_limited(job, place, limit, expected) for limit in limits]
        trials = [_trial("files may not grow beyond a limit (RLIMIT_FSIZE)", found)]
        with _mounted(place / "small") as small:
            if small is None:
                trials.append(Trial("a full disk: mounting is not permitted here", 0, 0, "not tried"))
            else:
                trials.append(_trial("a full disk (tmpfs)", [_full(job, small, expected)]))
                trials.append(_trial("a disk that can only be read", [_read_only(job, place, small, expected)]))
        (place / "file").write_text("in the way")
        refused = _refusal(job.finish(place / "file"))
        trials.append(_trial("a file in place of the output folder", [refused]))
    return trials


def _begin(job: Job, output: Path) -> None:
    """Stop a run in the middle."""
    process = job.start(output)
    wait_for_step(output, STEPS // 4)
    process.send_signal(signal.SIGTERM)
    if ended(process).status != 143:
        raise SystemExit("a run could not be stopped on its way")


def _limited(job: Job, place: Path, limit: int, expected: str) -> str:
    output = place / f"limited-{limit}"
    shutil.copytree(place / "begun", output)
    limited = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
    before = _checkpoints(output)
    return _refusal(job.finish(output, before=limited)) or _resumed(job, output, before, expected)


def _full(job: Job, small: Path, expected: str) -> str:
    """Fill a disk by training on it, make it larger, and go on."""
    output = small / "run"
    refused = _refusal(job.finish(output))
    before = _checkpoints(output)
    if not before:
        return "no checkpoint was saved before the disk was full"
    _mount("remount,size=64m", small)
    return refused or _resumed(job, output, before, expected)


def _read_only(job: Job, place: Path, small: Path, expected: str) -> str:
    output = small / "read-only"
    shutil.copytree(place / "begun", output)
    before = _checkpoints(output)
    _mount("remount,ro", small)
    refused = _refusal(job.finish(output))
    _mount("remount,rw", small)
    return refused or _resumed(job, output, before, expected)


def _refusal(process: Ended) -> str:
    """What is wrong with how a process ended that could not write; "" if nothing is."""
    errors = [line for line in process.lines if not line.startswith(("starting", "resuming"))]
    if process.status != 2 or len(errors) != 1:
        return f"status {process.status}, {len(errors)} lines: {errors[-1:]}"
    said = errors[0].removeprefix("minisbert: error: ")
    print(said, flush=True)
    return "" if said.startswith("cannot write ") or " is a file; expected" in said else f"it said {said!r}"


def _resumed(job: Job, output: Path, before: dict[str, str], expected: str) -> str:
    """What is wrong once there is room again; "" if nothing is."""
    now = _checkpoints(output)
    if any(now.get(name) != digest for name, digest in before.items()):
        return "an earlier checkpoint has changed"
    again = job.finish(output)
    if again.status or any("warning" in line for line in again.lines):
        return f"resumed, it ended with status {again.status}: {again.lines[-1:]}"
    return "" if weights(output) == expected else "other weights"


def _checkpoints(output: Path) -> dict[str, str]:
    """Digest of each file in a checkpoint."""
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in output.glob("checkpoint-*/**/*")
        if path.is_file()
    }


@contextmanager
def _mounted(place: Path) -> Iterator[Path | None]:
    """A small disk of its own, or None where mounting is not permitted."""
    place.mkdir()
    if not _mount(_SMALL, place, new=True):
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _mount(options: str, place: Path, *, new: bool = False) -> bool:
    command = ["mount", *(("-t", "tmpfs", "tmpfs") if new else ()), "-o", options, str(place)]
    try:
        return not subprocess.run(command, capture_output=True, check=False).returncode
    except OSError:  # there is no such command
        return False


def _trial(what: str, found: list[str]) -> Trial:
    return Trial(what, len(found), found.count(""), "; ".join(sorted({fault for fault in found if fault})) or "nothing")
