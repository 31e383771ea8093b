"""Embeddings that leave a GPU while it is at the next batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

Place = TypeVar("Place")
Arrival: TypeAlias = Callable[[], Tensor]
"""Waits for a copy, and returns it."""

# Copies under way while more work is queued. With one, the device would run dry while the rows of a batch are put in
# their places; each more holds its embeddings in memory once more.
_UNDER_WAY = 2


class Exit(Protocol):
    """A way from a device to the CPU."""

    def begin(self, values: Tensor) -> Arrival:
        """Begin to copy `values`, and return what waits for the copy."""
        ...


def leaving(found: Iterable[tuple[Place, Tensor]], way: Exit) -> Iterator[tuple[Place, Tensor]]:
    """What is found, on the CPU, in the same order.

    The copy of a batch begins when it is found, and is waited for when two more are, or there are none.
    """
    waiting: deque[tuple[Place, Arrival]] = deque()
    for place, values in found:
        waiting.append((place, way.begin(values)))
        if len(waiting) > _UNDER_WAY:
            place, arrival = waiting.popleft()
            yield place, arrival()
    for place, arrival in waiting:
        yield place, arrival()


class SideStream:
    """From a CUDA device on a stream of its own, through pinned memory; from other devices at once."""

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None

    def begin(self, values: Tensor) -> Arrival:
        """Begin to copy `values`, which the current stream makes."""
        if not values.is_cuda:
            return values.cpu
        if self._stream is None:
            self._stream = torch.cuda.Stream(values.device)  # type: ignore[no-untyped-call]
        stream = self._stream
        stream.wait_stream(torch.cuda.current_stream(values.device))
        with torch.cuda.stream(stream):
            copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            copy.copy_(values, non_blocking=True)
            arrived = stream.record_event()
        values.record_stream(stream)  # or its memory could be taken for the next batch before it was read

        def arrival() -> Tensor:
            arrived.synchronize()
            return copy

        return arrival
