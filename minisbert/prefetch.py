"""Keep a GPU fed: prepare items in a thread while it computes, and move tensors in one pinned copy."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import accumulate
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")

_ALIGNMENT = 16  # bytes: the widest load of one GPU thread


def prefetch(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """Yield the same items in the same order, of which up to `depth` are made before they are asked for.

    They are made one at a time in a thread, which starts with the first item asked for. It sees the context variables
    of that moment, but not what torch keeps for each thread: gradient and inference mode, autocast, device and stream.
    An error is raised in its item's turn. When this generator is closed or exhausted, so are the thread, after the
    item it is working on, and `items` if it is a generator.

    Args:
        items: the source.
        depth: at least 1.
    """
    source, context = iter(items), copy_context()
    thread = ThreadPoolExecutor(1, thread_name_prefix="minisbert-prefetch")
    try:
        made = deque(thread.submit(context.run, next, source) for _ in range(depth))
        while True:
            try:
                item = made.popleft().result()
            except StopIteration:
                return
            made.append(thread.submit(context.run, next, source))
            yield item
    finally:
        thread.shutdown(cancel_futures=True)
        if isinstance(source, Generator):
            source.close()


def to_device(tensors: Sequence[Tensor], device: torch.device | str) -> list[Tensor]:
    """Move tensors to `device`, in their order.

    From the CPU to a CUDA device they share one pinned buffer. The copy is queued on the current stream, and the
    originals may be changed or dropped at once.
    """
    target = torch.device(device)
    if target.type == "cuda" and all(tensor.device.type == "cpu" for tensor in tensors):
        return split_buffer(join_buffer(tensors, pinned=True).to(target, non_blocking=True), tensors)
    # A copy to the CPU that is not waited for could be read before it has arrived.
    return [tensor.to(target, non_blocking=target.type != "cpu") for tensor in tensors]


def join_buffer(tensors: Sequence[Tensor], *, pinned: bool = False) -> Tensor:
    """Copy CPU tensors end to end into one buffer: uint8, (bytes,).

    Args:
        tensors: of any dtypes and shapes; each begins at a multiple of 16 bytes.
        pinned: allocate the buffer in pinned memory, which a GPU reads by itself.
    """
    starts = _starts(tensors)
    buffer = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=pinned)
    for view, tensor in zip(split_buffer(buffer, tensors), tensors, strict=True):
        view.copy_(tensor)
    return buffer


def split_buffer(buffer: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Undo `join_buffer`: views of `buffer` with the dtypes and shapes of the tensors it was made from."""
    return [
        buffer[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        for start, tensor in zip(_starts(like), like, strict=False)
    ]


def _starts(tensors: Sequence[Tensor]) -> list[int]:
    """The first byte of each tensor in their buffer, and the buffer's size."""
    sizes = [math.ceil(tensor.nbytes / _ALIGNMENT) * _ALIGNMENT for tensor in tensors]
    return list(accumulate(sizes, initial=0))
