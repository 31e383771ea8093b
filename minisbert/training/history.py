"""The log of a run: entries, totals, and the metrics of evaluators."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..distributed import gather_objects, rank
from ..storage.files import as_json, replace_text, write_error

LogEntry: TypeAlias = dict[str, float]
OnLog: TypeAlias = Callable[[LogEntry], None]


@dataclass
class TrainingHistory:
    """The course of a run.

    Attributes:
        entries: one for each log or evaluation: step and epoch, then loss, learning_rate, grad_norm and
            tokens_per_second, or the metrics; and the terms of a loss that returns several.
        steps: optimizer steps done.
        train_loss: mean loss over all steps.
        seconds: wall time, including that before a resume up to its checkpoint.
        evaluation_seconds: the part of it spent on evaluations.
        tokens: tokens trained on in this run.
        best_metric: best value of the metric that decides (by default the evaluator's primary one), or None.
        best_step: the step it was reached at.
        skipped_steps: steps that changed nothing because their gradients were not finite, as happens in fp16.
        evaluations_without_gain: evaluations since the last that was better by more than the threshold of early
            stopping; None before the first.
        stopped_early: True if the run ended because of them.
        terms: names of the terms.
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
    evaluations_without_gain: int | None = None
    stopped_early: bool = False
    terms: list[str] = field(default_factory=list)


class TrainingLog:
    """Sum up steps, and hand each entry to the history, to a JSONL file and to a callback.

    Args:
        epoch_after: step to the epochs that are done after it.
        file: where entries are appended, or None.
        on_log: called with each entry.

    Attributes:
        history: the entries and totals.
        step_losses: losses of the steps since the last entry, (), read only when it is written.
        step_terms: terms of the batches of these steps, by name, for losses that have some.
        loss_total: sum of the losses before these.
    """

    def __init__(self, *, epoch_after: Callable[[int], float], file: Path | None, on_log: OnLog | None) -> None:
        self.history = TrainingHistory()
        self.step_losses: list[Tensor] = []
        self.step_terms: list[Mapping[str, Tensor]] = []
        self.loss_total = 0.0
        self._epoch_after, self._file, self._on_log = epoch_after, file, on_log
        self._tokens = 0

    def open(self) -> None:
        """Replace the file by the entries that the history has.

        Raises:
            InputError: the file cannot be written.
        """
        if self._file is not None:
            replace_text(self._file, "".join(as_json(entry) + "\n" for entry in self.history.entries))

    def start(self) -> None:
        """Start the clock."""
        self._clock = time.perf_counter()
        self._started = self._clock - self.history.seconds

    def add(self, loss: Tensor, *, tokens: int, terms: Sequence[Mapping[str, Tensor]] = ()) -> None:
        """Add the mean loss of a step, (), without reading it, its number of tokens, and the terms of its batches."""
        self.step_losses.append(loss)
        self.step_terms += terms
        self._tokens += tokens

    def write_losses(self, step: int, *, rate: float, norm: Tensor) -> LogEntry:
        """Write the mean loss of the steps since the last such entry, with the learning rate and norm of the last."""
        losses = torch.stack(self.step_losses).cpu().double()
        self.loss_total += float(losses.sum())
        now = time.perf_counter()
        entry = {
            **self._position(step),
            **self._means(self.step_terms),
            "loss": float(losses.mean()),
            "learning_rate": rate,
            "grad_norm": float(norm),
            "tokens_per_second": self._tokens / max(now - self._clock, 1e-9),
        }
        self.history.tokens += self._tokens
        self.step_losses, self.step_terms, self._tokens, self._clock = [], [], 0, now
        self.write(entry)
        return entry

    def write_metrics(
        self, step: int, metrics: Mapping[str, float], *, terms: Sequence[Mapping[str, Tensor]] = ()
    ) -> None:
        """Write the metrics of an evaluation, and the mean terms of its batches, their names after "eval_"."""
        named = {f"eval_{name}": value for name, value in {**self._means(terms), **metrics}.items()}
        self.write({**self._position(step), **named})

    def write(self, entry: LogEntry) -> None:
        """Write an entry.

        Raises:
            InputError: the file cannot be written.
        """
        self.history.entries.append(entry)
        if self._file is not None:
            try:
                with self._file.open("a", encoding="utf-8") as file:
                    file.write(as_json(entry) + "\n")
            except OSError as error:
                raise write_error(self._file, error) from error
        if self._on_log is not None:
            self._on_log(dict(entry))

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Count the time of a block of code as evaluation, not as training."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self._clock += seconds
        self.history.evaluation_seconds += seconds

    def count_seconds(self) -> None:
        """Bring the wall time of the history up to now."""
        self.history.seconds = time.perf_counter() - self._started

    def finish(self, steps: int) -> None:
        """Complete the totals of the history after the last of `steps` steps."""
        self.history.steps = steps
        self.history.train_loss = self.loss_total / max(1, steps)
        self.count_seconds()

    def _means(self, terms: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
        """Return the mean of each term over the batches that have it, and note its name."""
        terms = of_all(terms)
        names = list(dict.fromkeys(name for batch in terms for name in batch))
        self.history.terms += [name for name in names if name not in self.history.terms]
        return {
            name: float(torch.stack([batch[name] for batch in terms if name in batch]).double().mean())
            for name in names
        }

    def _position(self, step: int) -> LogEntry:
        return {"step": step, "epoch": round(self._epoch_after(step), 6)}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint keeps, as plain values."""
        return {
            "step_losses": [float(loss) for loss in self.step_losses],
            "step_terms": [{name: float(term) for name, term in batch.items()} for batch in of_all(self.step_terms)],
            "loss_total": self.loss_total,
            "history": asdict(self.history),
        }

    def load_state_dict(self, state: Mapping[str, Any], *, like: Tensor) -> None:
        """Go back to a checkpoint; losses get the dtype and device of `like`."""
        self.history = TrainingHistory(**state["history"])
        self.step_losses = [like.new_tensor(value) for value in state["step_losses"]]
        self.step_terms = [
            {name: like.new_tensor(value) for name, value in batch.items()}
            for batch in (state.get("step_terms", []) if rank() == 0 else [])  # which earlier checkpoints do not have
        ]
        self.loss_total = float(state["loss_total"])


def of_all(terms: Sequence[Mapping[str, Tensor]]) -> list[Mapping[str, Tensor]]:
    """Return the terms of batches of all processes of a run."""
    own = [{name: term.cpu() for name, term in batch.items()} for batch in terms]
    return [batch for part in gather_objects(own) for batch in part]


def loss_text(value: float) -> str:
    """Return a loss as it is printed: in four decimals, a small one in three significant digits."""
    return f"{value:.3g}" if 0 < abs(value) < 0.01 else f"{value:.4f}"
