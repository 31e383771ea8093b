"""Sample the batches of an epoch in the reference's orders, from one data set or several.

The orders depend on the seed and the epoch alone; nothing is drawn from the global generator. Permutations stay arrays,
eight bytes a row; draws are those of torch's samplers, also at their end, which decide the order of the data sets after
them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, count, islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from .roles import TrainingRows
from .rows import DatasetOrder

_BLOCK = 65_536  # rows of a permutation that are Python numbers at a time
_ORDERS = 1_000_003  # distance between the seeds of two orders of a data set in one epoch

_Batches: TypeAlias = Iterator[list[int] | NDArray[np.int64]]


class Batch(NamedTuple):
    """Rows of one data set: its index, and int64 row indices."""

    dataset: int
    rows: NDArray[np.int64]


class EpochSampler:
    """Cuts data sets into shuffled batches.

    An epoch takes every row of every data set once ("proportional": the next batch comes from a data set drawn in
    proportion to the batches it has) or a batch of each in turn until one is used up ("round_robin"). With weights, the
    data set of each batch is drawn by these, and one that is used up is shuffled again.

    Args:
        datasets: the rows.
        batch_size: rows of a full batch; the last of a data set may be smaller.
        seed: decides the order, together with the epoch.
        several: order of the batches of several data sets; None for a single data set.
        no_duplicates: no text is repeated in a batch. Rows that still wait for a later batch when the epoch has its
            `ceil(rows / batch_size)` batches are left out of it.
        duplicates_seed: epoch to the seed of batches without duplicates; by default `seed + epoch`.
        weights: shares of the batches of several data sets, above 0; they need not add up to 1.
        group_by_label: every label of a batch has at least two rows in it; rows without a partner are left out.

    Attributes:
        batch_size: rows of a full batch.
    """

    def __init__(
        self,
        datasets: Sequence[TrainingRows],
        *,
        batch_size: int,
        seed: int,
        several: DatasetOrder | None = None,
        no_duplicates: bool = False,
        duplicates_seed: Callable[[int], int] | None = None,
        group_by_label: bool = False,
        weights: Sequence[float] | None = None,
    ) -> None:
        from .label_groups import LabelGroups  # to train, and not to import

        self._rows = [len(rows) for rows in datasets]
        self.batch_size = batch_size
        self._seed = seed
        self._duplicates_seed = duplicates_seed or (lambda epoch: seed + epoch)
        self._several, self._weights = several, weights
        self._texts = [rows.text_numbers() for rows in datasets] if no_duplicates else None
        self._groups = (
            [LabelGroups(rows.scores, batch_size=batch_size, source=rows.source) for rows in datasets]
            if group_by_label
            else None
        )

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        batches = self._batch_counts()
        return min(batches) * len(batches) if self._in_turn else sum(batches)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch, counted from 0."""
        generator = torch.Generator().manual_seed(self._seed + epoch)
        if self._weights is not None:
            yield from self._weighted(self._weights, generator, epoch)
            return
        batches = [self._batches(number, generator, epoch) for number in range(len(self._rows))]
        if self._in_turn:
            turns = _round_robin(batches)
        elif self._several == "proportional":
            turns = _proportional(batches, self._batch_counts(), generator)
        else:
            turns = ((0, batch) for batch in batches[0])
        for dataset, rows in islice(turns, len(self)):
            yield Batch(dataset, np.array(rows, dtype=np.int64))

    @property
    def orders_rows(self) -> bool:
        """True if an epoch is one sequence of rows, whatever the batch size, of which `after` can skip some."""
        several = self._several is not None or self._weights is not None
        return type(self) is EpochSampler and not (several or self._texts or self._groups)

    def after(self, epoch: int, skip: int) -> Iterator[Batch]:
        """Yield the batches of one epoch without its first `skip` rows; only if `orders_rows`."""
        generator = torch.Generator().manual_seed(self._seed + epoch)
        for rows in self._shuffled(self._rows[0], generator, skip):
            yield Batch(0, rows)

    def count_after(self, skip: int) -> int:
        """Number of batches that `after` yields."""
        return math.ceil((self._rows[0] - skip) / self.batch_size)

    def left_out(self, epoch: int) -> int:
        """Count the rows that an epoch leaves out because they would repeat a text, or have no partner."""
        if self._groups is not None:
            return sum(self._rows) - sum(groups.rows for groups in self._groups)
        if self._in_turn or self._weights is not None or self._texts is None:
            return 0
        return sum(self._rows) - sum(len(batch.rows) for batch in self.epoch(epoch))

    @property
    def _in_turn(self) -> bool:
        return self._several == "round_robin" and self._weights is None

    def _weighted(self, weights: Sequence[float], generator: torch.Generator, epoch: int) -> Iterator[Batch]:
        """Draw the data set of every batch of an epoch first, and then the batches."""
        shares = torch.tensor(weights, dtype=torch.float64)
        turns = torch.multinomial(shares, len(self), replacement=True, generator=generator)
        endless = [self._endless(number, epoch) for number in range(len(self._rows))]
        for turn in _numbers(turns):
            yield Batch(turn, np.array(next(endless[turn]), dtype=np.int64))

    def _endless(self, dataset: int, epoch: int) -> _Batches:
        """Yield the batches of one data set, again and again, in another order each time."""
        for again in count():
            order = epoch + again * _ORDERS
            generator = torch.Generator().manual_seed(self._seed + order)
            yield from self._batches(dataset, generator, order)

    def _batch_counts(self) -> list[int]:
        if self._groups is not None:
            return [groups.batches for groups in self._groups]
        return [math.ceil(rows / self.batch_size) for rows in self._rows]

    def _batches(self, dataset: int, generator: torch.Generator, epoch: int) -> _Batches:
        """Yield the row indices of one data set, batch by batch; nothing is drawn before the first batch."""
        if self._groups is not None:
            generator.manual_seed(self._seed + epoch)
            yield from self._groups[dataset].epoch(generator)
        elif self._texts is None:
            yield from self._shuffled(self._rows[dataset], generator)
        else:
            generator.manual_seed(self._duplicates_seed(epoch))
            order = _numbers(torch.randperm(self._rows[dataset], generator=generator))
            yield from without_duplicates(order, self._texts[dataset], self.batch_size)

    def _shuffled(self, rows: int, generator: torch.Generator, skip: int = 0) -> Iterator[NDArray[np.int64]]:
        """Yield the batches of torch's RandomSampler, which draws a second permutation when the first is used up."""
        order, size = torch.randperm(rows, generator=generator).numpy()[skip:], self.batch_size
        for start in range(0, rows - skip + 1, size):
            batch = order[start : start + size].copy()
            if len(batch) < size:
                del order
                torch.randperm(rows, generator=generator)
            if len(batch):
                yield batch


def _numbers(values: torch.Tensor) -> Iterator[int]:
    """Yield the values of a tensor of whole numbers, (values,), without making a list of all."""
    for start in range(0, len(values), _BLOCK):
        yield from values[start : start + _BLOCK].tolist()


def _round_robin(batches: Sequence[_Batches]) -> Iterator[tuple[int, Any]]:
    for turn in zip(*batches, strict=False):  # ends with the smallest data set
        yield from enumerate(turn)


def _proportional(
    batches: Sequence[_Batches], counts: Sequence[int], generator: torch.Generator
) -> Iterator[tuple[int, Any]]:
    turns = torch.repeat_interleave(torch.tensor(counts))
    for turn in _numbers(turns[torch.randperm(len(turns), generator=generator)]):
        yield turn, next(batches[turn])


def without_duplicates(
    order: Iterable[int], texts: Sequence[Collection[int]] | NDArray[np.uint64], batch_size: int
) -> Iterator[list[int]]:
    """Yield batches without repeated texts; a row that would repeat one waits for the next batch."""
    waiting: list[int] = []
    rest = iter(order)
    while True:
        batch: list[int] = []
        taken: set[int] = set()
        postponed: list[int] = []
        first = iter(waiting)
        for row in chain(first, rest):
            if not taken.isdisjoint(texts[row]):
                postponed.append(row)
                continue
            batch.append(row)
            if len(batch) == batch_size:
                break
            taken.update(texts[row])
        if not batch:
            return
        yield batch
        waiting = [*postponed, *first]
