"""Guards of a run: signals that ask it to stop, and gradients or weights that are no longer finite."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor

from ..distributed import largest, rank, world_size
from ..errors import DivergenceError, TrainingInterrupted, TrainingTerminated
from .checkpoint import newest_valid
from .dataset import TrainingBatches

MAX_SKIPPED = 10  # steps in a row; loss scaling in fp16, which halves its scale each time, seldom needs half as many

_DEFAULT_HANDLERS: dict[signal.Signals, Callable[[int, FrameType | None], Any] | signal.Handlers] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


class StopSignal:
    """Note SIGINT and SIGTERM for a block of code, in which Python would otherwise stop at once.

    A Ctrl-C after the first signal stops at once. Signals reach the main thread only, and handlers installed by others
    stay. A signal that no exception has answered is raised again at the end of the block.

    Attributes:
        received: the first signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._process = os.getpid()
        self._installed: list[signal.Signals] = []

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number, handler in _DEFAULT_HANDLERS.items():
                if signal.getsignal(number) == handler:
                    signal.signal(number, self._note)
                    self._installed.append(number)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        for number in self._installed:
            signal.signal(number, _DEFAULT_HANDLERS[number])
        if self.received is not None and kind is None:
            signal.raise_signal(self.received)

    def agreed(self) -> int | None:
        """Return the first signal that a process of the run has received, or None; all return the same."""
        if world_size() > 1:
            self.received = int(largest(torch.tensor(self.received or 0))) or None
        return self.received

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked child does not train
            signal.signal(number, _DEFAULT_HANDLERS[signal.Signals(number)])
            signal.raise_signal(number)
            return
        # A second SIGTERM changes nothing: senders often signal a process and then its group.
        if number == signal.SIGINT and self.received is not None:
            signal.default_int_handler(number, frame)
        self.received = self.received or number


def interruption(number: int, *, step: int, total: int, checkpoint: Path | None) -> BaseException:
    """Make the exception that ends a run after step `step` of `total` because of signal `number`."""
    kept = f"{checkpoint} holds all that is needed to go on" if checkpoint else "nothing is saved without an output_dir"
    kind = TrainingInterrupted if number == signal.SIGINT else TrainingTerminated
    return kind(f"stopped after step {step} of {total}; {kept}", checkpoint=checkpoint)


class SkippedSteps:
    """Count the steps in a row that changed no weights, because their gradients were not finite.

    Args:
        step: number of steps done so far.
    """

    def __init__(self, step: int) -> None:
        self._step, self._in_a_row = step, 0
        self._norms: list[Tensor] = []  # of the steps since; read together, as reading one waits for a GPU

    def add(self, norm: Tensor) -> None:
        """Add the gradient norm of the next step, (), without reading it."""
        self._norms.append(norm.clone())  # a captured step overwrites its result

    def first(self) -> int | None:
        """Read the norms; return the first of `MAX_SKIPPED` skipped steps in a row, or None."""
        if not self._norms:
            return None
        finite = torch.stack(self._norms).isfinite().tolist()
        self._norms = []
        for one in finite:
            self._step += 1
            self._in_a_row = 0 if one else self._in_a_row + 1
            if self._in_a_row == MAX_SKIPPED:
                return self._step - MAX_SKIPPED + 1
        return None

    @property
    def skipping(self) -> bool:
        """Return True if the last step whose norm was read was skipped."""
        return self._in_a_row > 0

    def check(self, batches: TrainingBatches, output_dir: Path | None) -> None:
        """End the run if too many steps in a row were skipped; waits for the device.

        Raises:
            DivergenceError: they were; the message names the rows of the first.
        """
        if (first := self.first()) is not None:
            raise _divergence(
                f"the gradients of {MAX_SKIPPED} steps in a row are not finite, first those of step {first}: "
                f"{batches.describe(first)} (counted from 0); expected finite gradients: check these rows and their "
                f"labels, or start again in another folder with a lower learning_rate; {_last_good(output_dir)}"
            )


def check_weights(weights: Iterable[Tensor], step: int, output_dir: Path | None) -> None:
    """End the run before weights that are not finite are saved.

    Raises:
        DivergenceError: a weight is infinite or NaN.
    """
    if not all_finite(weights):
        raise _divergence(
            f"the weights are not finite after step {step}, and are not saved; expected finite weights: start again in "
            f"another folder with a lower learning_rate, or from another model; {_last_good(output_dir)}"
        )


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return True if no tensor holds an infinity or a NaN."""
    # Least and greatest take no memory; both are NaN where an element is.
    ends = [torch.stack(tensor.detach().aminmax()).double() for tensor in tensors if tensor.numel()]
    return not ends or bool(torch.stack(ends).isfinite().all())


def _divergence(message: str) -> DivergenceError:
    """Make the error that all processes of a run raise together, and the first one tells."""
    error = DivergenceError(message)
    error.told = rank() > 0
    return error


def _last_good(output_dir: Path | None) -> str:
    checkpoint = newest_valid(output_dir)[0] if output_dir is not None else None
    return f"the last good checkpoint is {checkpoint.folder}" if checkpoint else "there is no checkpoint"
