"""Batches in which every label has rows enough to compare: at least two of each of at least two labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError
from .rows import SMALLEST_GROUPED


class LabelGroups:
    """The rows of each label, shuffled and dealt out in pairs, as version 6.2 of the reference does.

    In each round, every label that still has a pair gives one, in a random order; rounds go on while two labels have
    one. What is left then, and the odd row of a label, is not in the epoch.

    Args:
        labels: one for each row, or None.
        batch_size: rows of a full batch, an even number from four; the last one may be smaller.
        source: origin of the rows, for messages.

    Raises:
        InputError: there are no labels, or fewer than two labels have two rows.
    """

    def __init__(self, labels: Sequence[float] | NDArray[Any] | None, *, batch_size: int, source: str) -> None:
        if labels is None:
            raise InputError(f"{source} has no label; expected one to group rows by: name its column")
        if not isinstance(labels, np.ndarray):
            numbers: dict[float, int] = {}
            labels = np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.int64)
        values: NDArray[Any] = labels
        self._rows = np.argsort(values, kind="stable")  # label by label, those of each in order
        by_label = values[self._rows]
        starts = np.flatnonzero(np.concatenate([[True], by_label[1:] != by_label[:-1]]))
        sizes = np.diff(starts, append=len(labels))
        first = np.argsort(self._rows[starts])  # labels in the order in which they first occur
        chosen = first[sizes[first] > 1]
        self._starts, self._sizes = starts[chosen], sizes[chosen]
        if len(chosen) < 2:
            raise InputError(
                f"{source} has {len(chosen)} label(s) with two rows or more, of {len(starts)}; expected at least "
                f"two to group rows by: use another batch_sampler"
            )
        self._batch_size = batch_size
        pairs = np.sort(self._sizes // 2)[::-1]
        rows_dealt = 2 * int(np.minimum(pairs, pairs[1]).sum())  # in rounds while two labels have a pair
        rest = rows_dealt % batch_size
        self.batches = rows_dealt // batch_size + (rest >= SMALLEST_GROUPED)
        self.rows = rows_dealt - (rest if rest < SMALLEST_GROUPED else 0)

    def epoch(self, generator: torch.Generator | None) -> Iterator[list[int]]:
        """Yield the batches of an epoch, with the draws of the reference."""
        dealt: NDArray[np.int64] = np.empty(0, np.int64)
        for pairs in self._rounds(generator):
            dealt = np.concatenate([dealt, pairs])
            full = len(dealt) // self._batch_size * self._batch_size
            yield from dealt[:full].reshape(-1, self._batch_size).tolist()
            dealt = dealt[full:]
        if len(dealt) >= SMALLEST_GROUPED:
            yield dealt.tolist()

    def _rounds(self, generator: torch.Generator | None) -> Iterator[NDArray[np.int64]]:
        """Yield the rows of one pair of each label, again and again while two labels have one."""
        shuffled = self._rows.copy()
        for start, size in zip(self._starts.tolist(), self._sizes.tolist(), strict=True):
            order = torch.randperm(size, generator=generator).numpy()
            shuffled[start : start + size] = self._rows[start : start + size][order]
        labels, last, dealt, done = np.arange(len(self._starts)), -1, 0, 0
        while len(labels) > 1:
            labels = labels[torch.randperm(len(labels), generator=generator).numpy()]
            if dealt % self._batch_size and labels[0] == last:
                labels[:2] = labels[1::-1]  # two pairs of a label do not follow each other in a batch
            first = self._starts[labels] + 2 * done
            yield shuffled[np.stack([first, first + 1], axis=1)].reshape(-1)
            dealt, done, last = dealt + 2 * len(labels), done + 1, int(labels[-1])
            labels = labels[self._sizes[labels] // 2 > done]
