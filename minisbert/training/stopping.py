"""Ctrl-C and SIGTERM while training: what is at work is finished first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from ..errors import TrainingInterrupted, TrainingTerminated

_PYTHONS_OWN: dict[signal.Signals, Callable[[int, FrameType | None], Any] | signal.Handlers] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


class Stop:
    """For a block of code, notes that the process is asked to stop, where Python would stop it at once.

    A Ctrl-C that follows stops it at once. Only the main thread is told of signals, and handlers that somebody else
    has installed stay. A request that nobody met with an exception is met when the block ends, in Python's way.

    Attributes:
        signal: the one that was received, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._process = os.getpid()
        self._installed: list[signal.Signals] = []

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number, handler in _PYTHONS_OWN.items():
                if signal.getsignal(number) == handler:
                    signal.signal(number, self._note)
                    self._installed.append(number)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        for number in self._installed:
            signal.signal(number, _PYTHONS_OWN[number])
        if self.signal is not None and kind is None:
            signal.raise_signal(self.signal)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked child does not train
            signal.signal(number, _PYTHONS_OWN[signal.Signals(number)])
            signal.raise_signal(number)
            return
        # A second SIGTERM changes nothing: who sends one often sends it to a process and to its group.
        if number == signal.SIGINT and self.signal is not None:
            signal.default_int_handler(number, frame)
        self.signal = self.signal or number


def stopped(number: int, *, step: int, total: int, checkpoint: Path | None) -> BaseException:
    """What to raise after step `step` of `total`, because of signal `number`."""
    kept = (
        f"{checkpoint} holds all that is needed to go on" if checkpoint else "nothing is saved, without an output_dir"
    )
    kind = TrainingInterrupted if number == signal.SIGINT else TrainingTerminated
    return kind(f"stopped after step {step} of {total}; {kept}", checkpoint=checkpoint)
