"""What a training run leaves behind: its log entries, evaluations and totals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ..storage.files import replace_text, write_error

LogEntry: TypeAlias = dict[str, float]
OnLog: TypeAlias = Callable[[LogEntry], None]


@dataclass
class TrainingHistory:
    """The course of a run.

    Attributes:
        entries: one for each log or evaluation: step and epoch, then loss, learning_rate, grad_norm and
            tokens_per_second, or the metrics.
        steps: optimizer steps done.
        train_loss: mean loss over all steps.
        seconds: wall time, that before a resume included up to its checkpoint.
        evaluation_seconds: how much of it went into evaluations.
        tokens: tokens trained on in this run.
        best_metric: largest primary metric, or None without an evaluator.
        best_step: the step it was reached at.
        skipped_steps: steps whose gradients were not finite, as in fp16 at times, and which changed nothing.
    """

    entries: list[LogEntry] = field(default_factory=list)
    steps: int = 0
    train_loss: float = 0.0
    seconds: float = 0.0
    evaluation_seconds: float = 0.0
    tokens: int = 0
    best_metric: float | None = None
    best_step: int | None = None
    skipped_steps: int = 0

    def state(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return asdict(self)


class TrainingLog:
    """Hands each entry to the history, to a JSONL file and to a callback.

    The file begins with the entries that the history has; what else it held is gone.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, history: TrainingHistory, file: Path | None, on_log: OnLog | None) -> None:
        self.history = history
        self._file = file
        self._on_log = on_log
        if file is not None:
            replace_text(file, "".join(json.dumps(entry) + "\n" for entry in history.entries))

    def write(self, entry: LogEntry) -> None:
        """Add an entry.

        Raises:
            InputError: the file cannot be written.
        """
        self.history.entries.append(entry)
        if self._file is not None:
            try:
                with self._file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
            except OSError as error:
                raise write_error(self._file, error) from error
        if self._on_log is not None:
            self._on_log(dict(entry))
