"""A small training that can be started as a process, stopped in many ways, and resumed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
WORDS = ("the", "cat", "dog", "sat", "on", "mat", "ran", "fast", "red", "blue", "sky", "sea", "one", "two")
_PATIENCE = 300  # seconds


class Ended(NamedTuple):
    """How a process ended: its status and the lines it wrote on standard error."""

    status: int
    lines: list[str]


class Job:
    """`minisbert train` of a tiny model that drops out, on made-up pairs, with a checkpoint after every step.

    Args:
        place: an empty folder.
        steps: of a whole run; with saves some hundred a second.
    """

    def __init__(self, place: Path, *, steps: int) -> None:
        sys.path.append(str(ROOT / "tests" / "helpers"))
        import tiny_models

        self.place, self.steps = place, steps
        draw = random.Random(0)
        rows = [("\t".join(" ".join(draw.choices(WORDS, k=5)) for _ in range(2)), draw.random()) for _ in range(100)]
        (place / "pairs.tsv").write_text("a\tb\tlabel\n" + "".join(f"{texts}\t{label}\n" for texts, label in rows))
        tiny_models.build(place / "model", "bert", layers=1)

    def arguments(self, output: Path) -> list[str]:
        """Of the command; it starts anew or goes on."""
        options = {
            "--model": self.place / "model",
            "--data": self.place / "pairs.tsv",
            "--loss": "cosine",
            "--device": "cpu",
            "--batch-size": 4,
            "--learning-rate": 1e-3,
            "--max-steps": self.steps,
            "--log-every": 1,
            "--save-every": 1,
            "--save-total-limit": 4,
            "--output": output,
        }
        return ["train", "--resume", *(str(part) for option in options.items() for part in option)]

    def start(self, output: Path, *more: str, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
        """Start the process; `before` runs in it first."""
        return subprocess.Popen(
            [sys.executable, "-m", "minisbert", *self.arguments(output), *more],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            preexec_fn=before,  # there are no threads
        )

    def finish(self, output: Path, *more: str, before: Callable[[], None] | None = None) -> Ended:
        """Start the process and wait for its end."""
        return ended(self.start(output, *more, before=before))

    def wait_for_work(self, process: subprocess.Popen[str]) -> str:
        """Wait until it says that it starts or resumes training, or ends; returns what it said last."""
        line = ""
        for line in process.stderr or ():
            if works(line):
                break
        return line.strip()


def works(line: str) -> bool:
    """Whether a process says with this line that it begins to train."""
    return line.startswith(("starting", "resuming"))


def ended(process: subprocess.Popen[str]) -> Ended:
    """Wait for the end of a process."""
    _, errors = process.communicate(timeout=_PATIENCE)
    return Ended(process.returncode, errors.splitlines())


def weights(output: Path) -> str:
    """Digest of the saved model's weights."""
    path = output / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no model"


def logged_step(output: Path) -> int:
    """The last step in the log."""
    path = output / "train_log.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    while lines:
        try:
            return int(json.loads(lines.pop())["step"])
        except ValueError:  # where the process was killed
            continue
    return 0


def wait_for_step(output: Path, step: int) -> None:
    """Wait until so many steps are logged."""
    until = time.monotonic() + _PATIENCE
    while logged_step(output) < step and time.monotonic() < until:
        time.sleep(0.01)
