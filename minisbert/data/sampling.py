"""In which order rows are trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray


def batches_per_epoch(rows: int, batch_size: int) -> int:
    """Batches in one pass over the rows, the last, smaller one included."""
    return math.ceil(rows / batch_size)


def epoch_batches(rows: int, batch_size: int, *, seed: int, epoch: int) -> Iterator[NDArray[np.int64]]:
    """Row numbers of each batch of one epoch, shuffled.

    The order depends on `seed` and `epoch` alone and is the reference's: a permutation drawn by torch from a
    generator seeded with their sum. Nothing is drawn from the global generator.
    """
    generator = torch.Generator().manual_seed(seed + epoch)
    order: NDArray[np.int64] = torch.randperm(rows, generator=generator).numpy()
    for start in range(0, rows, batch_size):
        yield order[start : start + batch_size]
