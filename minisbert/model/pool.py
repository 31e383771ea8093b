"""Embed texts with one model in several processes.

Each worker is a spawned process at the end of a pipe. It receives the model once, then one chunk of texts at a time.
The weights are in memory shared by all processes. A pipe leaves no locks behind, and a worker that dies closes its end
of it, so that the parent notices, and knows which one it was. (An executor of the standard library does not.)
"""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, cast

import numpy as np
import torch
import torch.multiprocessing

from ..errors import ConfigError, PoolError, first_line
from ..text import Text
from .devices import devices_for_processes, usable_device
from .encoding import EncodeOptions, EncodingRun, Rows, Values, allocate, collect, progress_bar
from .stack import ModuleStack

_MAX_CHUNK = 5_000  # texts
_CHUNKS_PER_WORKER = 10
_SECONDS_TO_END = 5
_NOT_STARTED = "expected it to start: in a script, start the pool under `if __name__ == '__main__':`"
_STOPPED = "expected it to keep running: start a new pool"
_KILLED = "expected nobody to kill it: start a new pool (-9 is how the system kills a process when memory runs out)"


@dataclass(frozen=True)
class _Job:
    """A chunk of texts for a worker; `first` is the number of its first text among all."""

    first: int
    texts: list[Text]
    options: EncodeOptions


@dataclass(frozen=True)
class _Result:
    """A worker's answer to a job: values with arrays in place of tensors, or the error."""

    values: Any = None
    truncated: int = 0
    error: Exception | None = None


@dataclass(frozen=True)
class _Worker:
    """A process, seen from its parent."""

    process: BaseProcess
    pipe: Connection
    device: str

    def send(self, message: ModuleStack | _Job, expected: str = _STOPPED) -> None:
        """Send the model or a chunk of texts; `receive` returns the answer to either."""
        try:
            self.pipe.send(message)
        except OSError:
            raise self._ended(expected) from None
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise PoolError(
                f"the model cannot be sent to another process ({error}); expected classes and functions that are "
                f"defined at the top level of a module"
            ) from None

    def receive(self, expected: str = _STOPPED) -> _Result:
        """Wait for an answer."""
        try:
            return cast(_Result, self.pipe.recv())
        except (EOFError, OSError):
            raise self._ended(expected) from None

    def _ended(self, expected: str) -> PoolError:
        self.process.join(1)
        code = self.process.exitcode
        killed = code is not None and code < 0
        return PoolError(
            f"worker process {self.process.pid} on {self.device} ended with exit code {code}; "
            f"{_KILLED if killed else expected}"
        )


class EncodingPool:
    """Processes that embed texts with one model: `with EncodingPool(model, ["cpu", "cpu"]) as pool:`.

    On the CPU the weights move to shared memory and exist once; on other devices each worker has a copy. A model that
    changes after the pool was started needs a new pool. A script has to start a pool under
    `if __name__ == "__main__":`, because each worker imports the script.

    Args:
        model: embeds the texts.
        devices: one for each process; by default every CUDA device, or the CPU up to four times.

    Attributes:
        workers: the processes.
        lock: held by the pass over texts that uses the pool.

    Raises:
        ConfigError: there are no devices, or one cannot be used on this machine.
        PoolError: a worker did not start.
    """

    def __init__(self, model: ModuleStack, devices: Sequence[str | torch.device] | None = None) -> None:
        if isinstance(devices, str) or not isinstance(devices, Sequence | None):
            raise ConfigError(f"got {devices!r} as devices of a pool; expected a list such as ['cpu', 'cpu']")
        names = list(map(str, devices_for_processes() if devices is None else devices))
        if not names:
            raise ConfigError("got no devices for the processes of a pool; expected a list such as ['cpu', 'cpu']")
        for name in names:
            usable_device(name)
        self.lock = threading.Lock()  # one pass at a time: an answer is matched to its job by the pipe it comes from
        threads = max(1, torch.get_num_threads() // len(names))
        context = torch.multiprocessing.get_context("spawn")
        self.workers: list[_Worker] = []
        self._parent = os.getpid()
        self._stop = weakref.finalize(self, _stop, self.workers, self._parent)
        try:
            with _interrupts_blocked():
                for name in names:
                    ours, theirs = context.Pipe()
                    process = context.Process(target=_work, args=(theirs, name, threads), daemon=True)
                    process.start()
                    self.workers.append(_Worker(process, ours, name))
                    theirs.close()  # so that this pipe ends when the worker dies
            shared = _share(model)
            self._state = _state(model)
            for worker in self.workers:
                worker.send(shared, _NOT_STARTED)
            for worker in self.workers:
                if (error := worker.receive(_NOT_STARTED).error) is not None:
                    raise error
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Number of processes."""
        return len(self.workers)

    def __enter__(self) -> EncodingPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes. A closed pool cannot be used again."""
        self._stop()

    def check_open(self) -> None:
        """Check that the pool runs.

        Raises:
            PoolError: it is closed, or was started before this process was forked.
        """
        if os.getpid() != self._parent:  # answers to two processes in one pipe could not be told apart
            raise PoolError(
                "got a pool of the process that this one was forked from; expected one of its own: start a new pool"
            )
        if not self._stop.alive:
            raise PoolError("got a pool that is closed; expected one that runs: start a new pool")

    def check_model(self, model: ModuleStack) -> None:
        """Check that the pool runs and embeds as `model` does now.

        Raises:
            PoolError: it is closed, or was started for another model or for other weights or settings.
        """
        self.check_open()
        if _state(model) != self._state:
            raise PoolError(
                "got a pool of another model, or of this one before its weights or settings changed; expected the "
                "model the pool was started for: start a new pool"
            )


class PoolRun:
    """One pass of a pool over texts. Iterate it to do the work, chunk by chunk.

    Args:
        pool: embeds the texts.
        texts: what to embed.
        options: what to return.
        chunk_size: most texts sent to a worker at once; by default each gets ten chunks.
        progress: show a bar on a terminal.

    Attributes:
        device: where the values are: the CPU.
        truncated: number of texts truncated so far.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        pool: EncodingPool,
        texts: list[Text],
        options: EncodeOptions,
        *,
        chunk_size: int | None = None,
        progress: bool = False,
    ) -> None:
        share = -(-len(texts) // (len(pool) * _CHUNKS_PER_WORKER))
        self._pool, self._texts, self._options, self._progress = pool, texts, options, progress
        self._chunk_size = chunk_size or max(1, min(share, _MAX_CHUNK))
        self.truncated = 0

    def __iter__(self) -> Iterator[tuple[Rows, Values]]:
        failures: dict[int, Exception] = {}
        with self._pool.lock:
            self._pool.check_open()
            try:
                yield from self._results(failures)
            except BaseException:
                # Answers to unfinished jobs would be taken for answers to the next ones.
                self._pool.close()
                raise
        if failures:
            raise failures[min(failures)]

    def _results(self, failures: dict[int, Exception]) -> Iterator[tuple[Rows, Values]]:
        """Keep every worker busy; after a failure, only wait for the busy ones."""
        starts = range(0, len(self._texts), self._chunk_size)
        jobs = (_Job(first, self._texts[first : first + self._chunk_size], self._options) for first in starts)
        idle, busy = list(self._pool.workers), dict[Connection, tuple[_Worker, _Job]]()
        with progress_bar(len(self._texts), show=self._progress) as bar:
            while True:
                while idle and not failures and (job := next(jobs, None)):
                    worker = idle.pop()
                    worker.send(job)
                    busy[worker.pipe] = (worker, job)
                if not busy:
                    return
                for pipe in wait(list(busy)):
                    worker, job = busy.pop(cast(Connection, pipe))
                    result = worker.receive()
                    idle.append(worker)
                    if result.error is not None:
                        failures[job.first] = result.error
                        continue
                    self.truncated += result.truncated
                    if bar is not None:
                        bar.update(len(job.texts))
                    yield np.arange(job.first, job.first + len(job.texts)), _convert(result.values, torch.from_numpy)


def _work(pipe: Connection, device: str, threads: int) -> None:
    """Run a worker: receive the model, then answer jobs until the pipe ends."""
    torch.set_num_threads(threads)
    with suppress(EOFError, OSError):  # the parent is gone
        try:
            model: ModuleStack = pipe.recv().to(device)
        except Exception as error:
            pipe.send(_Result(error=portable(error)))
            return
        pipe.send(_Result())
        while True:
            pipe.send(_embed(model, pipe.recv()))


def _embed(model: ModuleStack, job: _Job) -> _Result:
    try:
        run = EncodingRun(model, job.texts, job.options, first=job.first)
        shape = len(job.texts), model.dimension(job.options.truncate_dim)
        values = collect(run, allocate(shape, job.options, device=torch.device("cpu")))
        return _Result(_convert(values, lambda tensor: tensor.cpu().numpy()), run.truncated)
    except Exception as error:
        return _Result(error=portable(error))


def portable(error: Exception) -> Exception:
    """Return the error itself if it can be pickled, or else a PoolError with its message."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    except Exception:
        return PoolError(f"a worker failed: {type(error).__name__}: {error}")
    return error


def _convert(values: Any, convert: Callable[[Any], Any]) -> Any:
    """Convert every tensor or array in embeddings, token embeddings or dictionaries of both."""
    if isinstance(values, list):
        return [_convert(value, convert) for value in values]
    if isinstance(values, dict):
        return {name: convert(value) for name, value in values.items()}
    return convert(values)


def _share(model: ModuleStack) -> ModuleStack:
    """Move the model, or a copy if it is not on the CPU, to memory that processes share."""
    if model.device.type != "cpu":
        model = copy.deepcopy(model).to("cpu")
    try:
        return model.share_memory()
    except (RuntimeError, OSError) as error:
        reason = first_line(error)
        raise PoolError(
            f"the weights cannot be shared with other processes ({reason}); expected room for them in /dev/shm: make "
            f"it larger (docker run --shm-size), or encode without a pool"
        ) from None


def _state(model: ModuleStack) -> tuple[object, ...]:
    """Return a value that changes with the model's settings and weights."""
    weights = [(parameter.data_ptr(), parameter._version) for parameter in model.parameters()]
    return [module.extra_repr() for module in model], weights


def _stop(workers: list[_Worker], parent: int) -> None:
    if os.getpid() != parent:  # a forked copy of the parent does not own the workers
        return
    for worker in workers:
        worker.pipe.close()
        worker.process.terminate()
    for worker in workers:
        worker.process.join(_SECONDS_TO_END)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.process.close()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach: the parent handles it, and ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
