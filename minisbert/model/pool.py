"""Several processes that embed texts with one model.

Each worker is a fresh process at the end of a pipe: it receives the model once and then one chunk of texts at a time.
The weights lie in memory that all processes share. A pipe has no locks to leave behind, and a worker that dies closes
its end, so that the parent notices.
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
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.multiprocessing
from numpy.typing import NDArray

from ..errors import ConfigError, PoolError
from ..text import Text
from .devices import devices_for_processes, usable_device
from .encoding import EncodeOptions, Values, check_count, collect, progress_bar, room_for, start_run
from .stack import ModuleStack

if TYPE_CHECKING:
    from types import TracebackType

_MOST_TEXTS = 5_000
_CHUNKS_PER_WORKER = 10
_SECONDS_TO_END = 5
_AT_START = "expected it to start: a script has to start its pool under `if __name__ == '__main__':`"
_AT_WORK = "expected it to work: start a new pool"
_KILLED = "expected nobody to end it: start a new pool (-9 is how the system ends a process when memory runs out)"


@dataclass(frozen=True)
class _Job:
    """A chunk of texts for a worker. `first` is the number of its first text among all."""

    first: int
    texts: list[Text]
    options: EncodeOptions


@dataclass(frozen=True)
class _Done:
    """What a worker made of a job: values with arrays for tensors, or why it could not."""

    values: Any = None
    truncated: int = 0
    error: Exception | None = None


@dataclass(frozen=True)
class _Worker:
    """A process, seen from its parent."""

    process: BaseProcess
    pipe: Connection
    device: str

    def start(self, model: ModuleStack) -> None:
        """Hand over the model."""
        try:
            self.pipe.send(model)
        except OSError:
            raise self._ended(_AT_START) from None
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise PoolError(
                f"the model cannot be sent to another process ({error}); expected classes and functions that stand at "
                f"the top of a module"
            ) from None

    def send(self, job: _Job) -> None:
        """Hand over work."""
        try:
            self.pipe.send(job)
        except OSError:
            raise self._ended(_AT_WORK) from None

    def receive(self, hint: str = _AT_WORK) -> _Done:
        """Wait for an answer."""
        try:
            return cast(_Done, self.pipe.recv())
        except (EOFError, OSError):
            raise self._ended(hint) from None

    def _ended(self, hint: str) -> PoolError:
        self.process.join(1)
        process, code = self.process, self.process.exitcode
        killed = code is not None and code < 0
        return PoolError(
            f"worker process {process.pid} on {self.device} ended with exit code {code}; {_KILLED if killed else hint}"
        )


class EncodingPool:
    """Processes that embed texts with one model: `with EncodingPool(model, ["cpu", "cpu"]) as pool:`.

    On the CPU the weights move to shared memory and exist once; elsewhere each worker has a copy. A model that is
    changed after the pool was made needs a new one. A script that starts a pool has to do so under
    `if __name__ == "__main__":`, because each worker imports it.

    Args:
        model: what embeds.
        devices: one for each process; by default every CUDA device, or the CPU up to four times.

    Attributes:
        workers: the processes.

    Raises:
        ConfigError: no devices, or one that cannot be used here.
        PoolError: a worker did not start.
    """

    def __init__(self, model: ModuleStack, devices: Sequence[str | torch.device] | None = None) -> None:
        names = list(map(str, devices_for_processes() if devices is None else devices))
        if not names:
            raise ConfigError("got no devices for the processes of a pool; expected a list such as ['cpu', 'cpu']")
        for name in names:
            usable_device(name)
        self.lock = threading.Lock()  # one pass at a time: answers are told apart by the pipe they come from
        threads = max(1, torch.get_num_threads() // len(names))
        context = torch.multiprocessing.get_context("spawn")
        self.workers: list[_Worker] = []
        self._parent = os.getpid()
        self._stop = weakref.finalize(self, _stop, self.workers, self._parent)
        try:
            with _no_interrupt():
                for name in names:
                    ours, theirs = context.Pipe()
                    process = context.Process(target=_work, args=(theirs, name, threads), daemon=True)
                    process.start()
                    self.workers.append(_Worker(process, ours, name))
                    theirs.close()  # the worker's death is then the end of this pipe
            shared = _shared(model)
            self._state = _state(model)
            for worker in self.workers:
                worker.start(shared)
            for worker in self.workers:
                if (error := worker.receive(_AT_START).error) is not None:
                    raise error
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Number of processes."""
        return len(self.workers)

    def __enter__(self) -> EncodingPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes. A closed pool embeds nothing."""
        self._stop()

    def check_open(self) -> None:
        """Make sure that the pool runs.

        Raises:
            PoolError: it is closed, or was started before this process was forked.
        """
        if os.getpid() != self._parent:  # what two processes ask through one pipe cannot be told apart
            raise PoolError(
                "got a pool of the process that this one was forked from; expected its own: start a new one"
            )
        if not self._stop.alive:
            raise PoolError("got a pool that is closed; expected one that runs: start a new one")

    def check(self, model: ModuleStack) -> None:
        """Make sure that the pool can embed what `model` would embed now.

        Raises:
            PoolError: the pool is closed, or was made for another model or for other weights or settings.
        """
        self.check_open()
        if _state(model) != self._state:
            raise PoolError(
                "got a pool of another model, or of this one before its weights or settings changed; expected the "
                "model the pool was started for: start a new pool"
            )


class PoolRun:
    """One pass of a pool over texts; iterating it does the work, chunk by chunk.

    Args:
        pool: what embeds.
        texts: what to embed.
        options: what to make of them.
        chunk_size: most texts that a worker is given at once; by default so that each is given ten chunks.
        progress: show a bar on a terminal.

    Attributes:
        truncated: how many texts were cut so far.

    Raises:
        ConfigError: the chunk size is below 1.
    """

    def __init__(
        self,
        pool: EncodingPool,
        texts: list[Text],
        options: EncodeOptions,
        *,
        chunk_size: int | None = None,
        progress: bool = False,
    ) -> None:
        check_count("chunk_size", chunk_size, otherwise="None to choose one")
        share = -(-len(texts) // (len(pool) * _CHUNKS_PER_WORKER))
        self._pool, self._texts, self._options, self._progress = pool, texts, options, progress
        self._chunk_size = chunk_size or max(1, min(share, _MOST_TEXTS))
        self.truncated = 0

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], Values]]:
        failures: dict[int, Exception] = {}
        with self._pool.lock:
            self._pool.check_open()
            try:
                yield from self._results(failures)
            except BaseException:
                # With work under way, what a pipe brings next could not be told apart from what was asked next.
                self._pool.close()
                raise
        if failures:
            raise failures[min(failures)]

    def _results(self, failures: dict[int, Exception]) -> Iterator[tuple[NDArray[np.int64], Values]]:
        """Keep every worker busy; after a failure, only wait for those that are."""
        jobs = self._jobs()
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
                    done = worker.receive()
                    idle.append(worker)
                    if done.error is not None:
                        failures[job.first] = done.error
                        continue
                    self.truncated += done.truncated
                    bar.update(len(job.texts))
                    yield np.arange(job.first, job.first + len(job.texts)), _mapped(done.values, torch.from_numpy)

    def _jobs(self) -> Iterator[_Job]:
        for first in range(0, len(self._texts), self._chunk_size):
            yield _Job(first, self._texts[first : first + self._chunk_size], self._options)


def _work(pipe: Connection, device: str, threads: int) -> None:
    """What a worker does: take the model, then jobs, until the pipe ends."""
    torch.set_num_threads(threads)
    with suppress(EOFError, OSError):  # the parent is gone
        try:
            model: ModuleStack = pipe.recv().to(device)
        except Exception as error:
            pipe.send(_Done(error=_portable(error)))
            return
        pipe.send(_Done())
        while True:
            pipe.send(_result(model, pipe.recv()))


def _result(model: ModuleStack, job: _Job) -> _Done:
    try:
        run = start_run(model, job.texts, job.options, first=job.first)
        values = collect(run, room_for(model, len(job.texts), job.options, device=torch.device("cpu")))
        return _Done(_mapped(values, lambda tensor: tensor.cpu().numpy()), run.truncated)
    except Exception as error:
        return _Done(error=_portable(error))


def _portable(error: Exception) -> Exception:
    """The error itself where it survives the pipe, or else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    except Exception:
        return PoolError(f"a worker failed: {type(error).__name__}: {error}")
    return error


def _mapped(values: Any, change: Callable[[Any], Any]) -> Any:
    """Embeddings, token embeddings or dictionaries of both, with every tensor or array changed."""
    if isinstance(values, list):
        return [_mapped(value, change) for value in values]
    if isinstance(values, dict):
        return {name: change(value) for name, value in values.items()}
    return change(values)


def _shared(model: ModuleStack) -> ModuleStack:
    """The model as workers receive it: on the CPU, in memory that they share."""
    if model.device.type != "cpu":
        model = copy.deepcopy(model).to("cpu")
    try:
        return model.share_memory()
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise PoolError(
            f"the weights cannot be shared with other processes ({reason}); expected room for them in /dev/shm: make "
            f"it larger (docker run --shm-size), or encode without a pool"
        ) from None


def _state(model: ModuleStack) -> tuple[object, ...]:
    """What differs after a change of settings or weights."""
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
def _no_interrupt() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach: the parent alone answers it, and ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
