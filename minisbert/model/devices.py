"""Devices: choose one, copy results back from it, and keep forked children from hanging."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from ..distributed import local_device
from ..errors import ConfigError, first_line

Item = TypeVar("Item")
StartCopy: TypeAlias = Callable[[Tensor], Callable[[], Tensor]]
"""Starts to copy a tensor to the host; the function it returns waits for the copy and returns it."""

_CPU_PROCESSES = 4
# Copies in flight while more work is queued. With one, the device would run dry while the rows of a batch are written
# to their places; each further one holds its embeddings in memory once more.
_COPIES_IN_FLIGHT = 2


def usable_device(device: str | torch.device | None) -> torch.device:
    """Return the given device, or the best available one: CUDA, then Apple's MPS, then the CPU.

    Of several processes that a launcher has started, each has a GPU of its own.

    Raises:
        ConfigError: the device cannot be used on this machine.
    """
    if device is None:
        if torch.cuda.is_available():
            return local_device(torch.device("cuda"))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        result = torch.device(device)
        if result.type == "meta":
            raise RuntimeError("it stores no numbers")
        torch.empty(0, device=result)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise ConfigError(
            f"got device={device!r}, which cannot be used here ({first_line(error)}); expected cpu, cuda or mps"
        ) from None
    return local_device(result)


def devices_for_processes() -> list[str]:
    """One device for each process of a pool: every CUDA device, or the CPU once for each core, up to four times."""
    if torch.cuda.is_available():
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu"] * min(_CPU_PROCESSES, os.cpu_count() or 1)


# ---- copies to the host ---------------------------------------------------------------------------------------------


def copy_to_host(batches: Iterable[tuple[Item, Tensor]], start_copy: StartCopy) -> Iterator[tuple[Item, Tensor]]:
    """Yield the same items in the same order with their tensors on the CPU, copied while the next batches run.

    The copy of a batch starts when the batch is there, and is waited for when two more have started or none is left.
    """
    in_flight: deque[tuple[Item, Callable[[], Tensor]]] = deque()
    for item, tensor in batches:
        in_flight.append((item, start_copy(tensor)))
        if len(in_flight) > _COPIES_IN_FLIGHT:
            item, wait = in_flight.popleft()
            yield item, wait()
    for item, wait in in_flight:
        yield item, wait()


def side_stream_copies(device: torch.device) -> StartCopy:
    """Copy from a CUDA device to pinned memory on a stream of its own."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def start_copy(tensor: Tensor) -> Callable[[], Tensor]:
        stream.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(stream):
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            copy.copy_(tensor, non_blocking=True)
            copied = stream.record_event()
        tensor.record_stream(stream)  # or its memory could be reused for the next batch before it was read

        def wait() -> Tensor:
            copied.synchronize()
            return copy

        return wait

    return start_copy


# ---- forks ----------------------------------------------------------------------------------------------------------


_THIS_THREAD = threading.local()  # has `computed` once the thread has run a model


def make_fork_safe() -> None:
    """Let a child that is forked from this thread compute with one thread.

    The worker threads of torch and of our C++ belong to the thread that started them. A fork leaves them behind, and
    OpenMP would wait for them in the child forever.
    """
    # torch.compile cannot trace thread locals.
    if not torch.compiler.is_compiling() and not hasattr(_THIS_THREAD, "computed"):
        _THIS_THREAD.computed = True
        _register_fork_handler()


@cache
def _register_fork_handler() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_use_one_thread)


def _use_one_thread() -> None:
    if hasattr(_THIS_THREAD, "computed"):
        torch.set_num_threads(1)
