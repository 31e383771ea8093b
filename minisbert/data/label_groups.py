"""Batches in which every label has rows enough to compare: at least two of each of at least two labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch

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

    def __init__(self, labels: Sequence[float] | None, *, batch_size: int, source: str) -> None:
        if labels is None:
            raise InputError(f"{source} has no label; expected one to group rows by: name its column")
        rows: dict[float, list[int]] = {}
        for row, label in enumerate(labels):
            rows.setdefault(label, []).append(row)
        self._groups = [group for group in rows.values() if len(group) > 1]
        if len(self._groups) < 2:
            raise InputError(
                f"{source} has {len(self._groups)} label(s) with two rows or more, of {len(rows)}; expected at least "
                f"two to group rows by: use another batch_sampler"
            )
        self._batch_size = batch_size
        pairs = sorted((len(group) // 2 for group in self._groups), reverse=True)
        rows_dealt = 2 * sum(min(count, pairs[1]) for count in pairs)  # in rounds while two labels have a pair
        rest = rows_dealt % batch_size
        self.batches = rows_dealt // batch_size + (rest >= SMALLEST_GROUPED)
        self.rows = rows_dealt - (rest if rest < SMALLEST_GROUPED else 0)

    def epoch(self, generator: torch.Generator | None) -> Iterator[list[int]]:
        """Yield the batches of an epoch, with the draws of the reference."""
        dealt: list[int] = []
        for pair in self._pairs(generator):
            dealt += pair
            if len(dealt) == self._batch_size:
                yield dealt
                dealt = []
        if len(dealt) >= SMALLEST_GROUPED:
            yield dealt

    def _pairs(self, generator: torch.Generator | None) -> Iterator[list[int]]:
        waiting: list[list[list[int]]] = []
        for group in self._groups:
            order = [group[place] for place in torch.randperm(len(group), generator=generator).tolist()]
            waiting.append([[one, other] for one, other in list(pairwise(order))[::2]])
        labels, last, dealt = list(range(len(waiting))), -1, 0
        rounds = [0] * len(waiting)
        while len(labels) > 1:
            labels = [labels[place] for place in torch.randperm(len(labels), generator=generator).tolist()]
            if (
                dealt % self._batch_size and labels[0] == last
            ):  # two pairs of a label do not follow each other in a batch
                labels[:2] = labels[1::-1]
            for label in labels:
                yield waiting[label][rounds[label]]
                rounds[label] += 1
                dealt += 2
            last = labels[-1]
            labels = [label for label in labels if rounds[label] < len(waiting[label])]
