"""Tensors to a device: to a GPU in a single copy, which the caller does not wait for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_ALIGNMENT = 16  # bytes: the widest that a thread of a GPU reads at once


def moved(tensors: Sequence[Tensor], device: torch.device | str) -> list[Tensor]:
    """The tensors on `device`, in their order.

    From the CPU to a CUDA device they share one buffer. The copy is queued on the current stream, and the originals may
    be changed or dropped at once.
    """
    target = torch.device(device)
    if target.type == "cuda" and all(tensor.device.type == "cpu" for tensor in tensors):
        return apart(together(tensors, pinned=True).to(target, non_blocking=True), tensors)
    # What comes to the CPU without waiting could be read before it is there.
    return [tensor.to(target, non_blocking=target.type != "cpu") for tensor in tensors]


def together(tensors: Sequence[Tensor], *, pinned: bool = False) -> Tensor:
    """Copy tensors of the CPU end to end into one buffer: uint8, (bytes,).

    Args:
        tensors: of any types and shapes; each begins at a multiple of 16 bytes.
        pinned: put the buffer into memory that a GPU reads by itself.
    """
    starts = _starts(tensors)
    buffer = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=pinned)
    for place, tensor in zip(apart(buffer, tensors), tensors, strict=True):
        place.copy_(tensor)
    return buffer


def apart(buffer: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Undo `together`: views of `buffer` with the types and shapes of the tensors it was made from."""
    return [
        buffer[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        for start, tensor in zip(_starts(like), like, strict=False)
    ]


def _starts(tensors: Sequence[Tensor]) -> list[int]:
    """The first byte of each tensor in their buffer, and its size."""
    starts = [0]
    for tensor in tensors:
        starts.append(starts[-1] + math.ceil(tensor.nbytes / _ALIGNMENT) * _ALIGNMENT)
    return starts
