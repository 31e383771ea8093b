"""Feeding one input after another, and what is made of what comes of it."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minisbert.errors import MinisbertError

from .changes import Mutation

LONGEST_INPUT = 10.0  # seconds
MOST_MEMORY = 500_000_000  # bytes more than before


class Hang(BaseException):
    """An input took too long."""


@dataclass
class Outcome:
    """What came of the inputs of a target.

    Attributes:
        inputs: how many were tried.
        succeeded: how many were read.
        refused: how many ended in one of our own errors.
        failures: the input and the exception of each other one.
    """

    inputs: int = 0
    succeeded: int = 0
    refused: int = 0
    failures: list[tuple[bytes, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """Something that reads a file.

    Attributes:
        seeds: valid files.
        change: makes an input of one.
        prepare: fills a folder with what stands around the file.
        feed: writes the input into that folder, and reads it.
    """

    seeds: Callable[[], Sequence[bytes]]
    change: Mutation
    feed: Callable[[Path, bytes], None]
    prepare: Callable[[Path], object] = lambda folder: None


def run(target: Target, *, inputs: int | None = None, seconds: float | None = None, seed: int = 0) -> Outcome:
    """Feed a target with so many inputs, or for so long; equal seeds make equal inputs."""
    draw, outcome = random.Random(seed), Outcome()
    end = time.monotonic() + seconds if seconds is not None else None
    seeds = target.seeds()
    with _workplace() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target.prepare(folder)
        while (inputs is None or outcome.inputs < inputs) and (end is None or time.monotonic() < end):
            # The valid files first: what refuses them tests nothing.
            number = outcome.inputs
            content = seeds[number] if number < len(seeds) else target.change(draw.choice(seeds), draw)
            outcome.inputs += 1
            verdict = _verdict(lambda content=content: target.feed(folder, content))
            outcome.succeeded += verdict == "read"
            outcome.refused += verdict == "refused"
            if verdict not in ("read", "refused") or (number < len(seeds) and verdict != "read"):
                outcome.failures.append((content, verdict))
    return outcome


@contextlib.contextmanager
def _workplace() -> Iterator[Path]:
    """A folder in memory where there is one, and the signal that ends what hangs."""

    def ring(number: int, frame: object) -> None:
        raise Hang(f"{LONGEST_INPUT:g} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    memory = Path("/dev/shm")
    try:
        with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
            yield Path(name)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _verdict(read: Callable[[], None]) -> str:
    """ "read", "refused", or what went wrong."""
    forget_peak()
    before = peak()
    signal.setitimer(signal.ITIMER_REAL, LONGEST_INPUT)
    try:
        read()
        verdict = "read"
    except MinisbertError as error:
        verdict = "refused" if _is_one_line(str(error)) else f"not one line: {str(error)[:500]!r}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of a Rust library is no Exception
        verdict = repr(error)[:500]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    grown = peak() - before
    return verdict if grown < MOST_MEMORY else f"{grown:,} bytes of memory ({verdict})"


def _is_one_line(message: str) -> bool:
    """As the commands print it: without breaks, and not longer than anyone reads."""
    return bool(message.strip()) and "\n" not in message.strip()


def peak() -> int:
    """Most bytes of memory since `forget_peak`, where the system can forget; otherwise since the process began."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def forget_peak() -> None:
    """Let the most be what is used now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
