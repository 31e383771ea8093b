"""The course of a run as it goes: one live line on a terminal, and a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

import torch
from torch import Tensor
from tqdm import tqdm

from .history import loss_text

_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{remaining} left{postfix}]"  # fits into 80 columns
_LIVE, _LINES = 1.0, 15.0  # seconds between two; reading the losses makes a GPU wait


class TrainingProgress:
    """Shows step, loss, learning rate, tokens per second and the time left, on standard error.

    Args:
        total: steps of the run.
        done: steps before this start of it.
        shown: False to show nothing.
        rate: returns the learning rate.
        clock: seconds; for tests.
    """

    def __init__(
        self, total: int, *, done: int, shown: bool, rate: Callable[[], float], clock: Callable[[], float] | None = None
    ) -> None:
        self._total, self._step, self._first, self._rate = total, done, done, rate
        self._clock = clock or time.monotonic
        shown = shown and sys.stderr is not None  # there is none under pythonw
        live = shown and sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, disable=False, bar_format=_BAR) if live else None
        self._shown, self._every = shown, _LIVE if live else _LINES
        self._losses: list[Tensor] = []
        self._tokens = 0
        self._begun = self._last = self._clock()

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            if self._losses:
                self._show(self._clock())
            self._bar.close()

    def add(self, loss: Tensor, *, tokens: int) -> None:
        """Count a step with its mean loss, (), which is read only when it is shown."""
        self._step += 1
        if not self._shown:
            return
        self._losses.append(loss)
        self._tokens += tokens
        if self._bar is not None:
            self._bar.update()
        if (now := self._clock()) - self._last >= self._every:
            self._show(now)

    @contextmanager
    def paused(self, what: str) -> Iterator[None]:
        """Leave the time of a block out of speed and time left; on a terminal the live line says what it is."""
        if not self._shown:
            yield
            return
        start = self._clock()
        if self._bar is not None:
            if self._losses:
                self._show(start)
            before = str(self._bar.postfix or "")
            self._bar.set_postfix_str(what)
        try:
            yield
        finally:
            spent = self._clock() - start
            self._last += spent
            self._begun += spent
            if self._bar is not None:
                self._bar.start_t += spent
                self._bar.last_print_t += spent
                self._bar.set_postfix_str(before)

    def _show(self, now: float) -> None:
        """Show the means since this was last done."""
        loss = loss_text(float(torch.stack(self._losses).double().mean()))
        speed = f"{self._tokens / max(now - self._last, 1e-9):,.0f}"
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss={loss}, rate={self._rate():.2e}, tokens/s={speed}")
        else:
            left = (now - self._begun) / (self._step - self._first) * (self._total - self._step)
            sys.stderr.write(
                f"step {self._step:,} of {self._total:,}: loss {loss}, rate {self._rate():.2e}, {speed} tokens/s, "
                f"{duration(left)} left\n"
            )
            sys.stderr.flush()
        self._losses, self._tokens, self._last = [], 0, now


def duration(seconds: float) -> str:
    """Return a time in words: "42 s", "3 min 5 s", "2 h 7 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
