"""Batches that the settings of minisbert do not name: full ones only, in the order of the rows, by users' samplers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, ConcatDataset, SequentialSampler

from ...data.roles import TrainingRows
from ...data.sampling import Batch, EpochSampler
from ...errors import ConfigError

LABEL_COLUMNS = ("label", "labels", "score", "scores")


class FullBatches(EpochSampler):
    """Cuts data sets into shuffled batches, and leaves out the last of each that is not full."""

    def _batch_counts(self) -> list[int]:
        return [rows // self.batch_size for rows in self._rows]

    def _batches(self, dataset: int, generator: torch.Generator, epoch: int) -> Iterator[Any]:
        for rows in super()._batches(dataset, generator, epoch):
            if len(rows) == self.batch_size:
                yield rows


class GivenBatches(EpochSampler):
    """Takes the batches of each data set from a sampler of its own.

    Args:
        datasets: the rows.
        samplers: one for each; they have a length, and yield lists of row indices.
        options: of `EpochSampler`.
    """

    def __init__(self, datasets: Sequence[TrainingRows], samplers: Sequence[Any], **options: Any) -> None:
        super().__init__(datasets, **options)
        self._samplers = samplers

    def _batch_counts(self) -> list[int]:
        return [len(sampler) for sampler in self._samplers]

    def _batches(self, dataset: int, generator: torch.Generator, epoch: int) -> Iterator[list[int]]:
        sampler = self._samplers[dataset]
        set_epoch(sampler, epoch)
        for rows in sampler:
            yield list(map(int, rows))


class GivenTurns(EpochSampler):
    """Takes the batches of several data sets from one sampler over the rows of all of them, one after the other.

    Args:
        datasets: the rows.
        sampler: it has a length, and yields lists of indices into all rows.
        options: of `EpochSampler`.
    """

    def __init__(self, datasets: Sequence[TrainingRows], sampler: Any, **options: Any) -> None:
        super().__init__(datasets, **options)
        self._sampler = sampler
        self._ends = list(accumulate(map(len, datasets)))

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        return len(self._sampler)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch, counted from 0.

        Raises:
            ConfigError: a batch has rows of two data sets.
        """
        set_epoch(self._sampler, epoch)
        for indices in self._sampler:
            rows = np.array(list(indices), dtype=np.int64)
            of = {bisect_right(self._ends, index) for index in rows.tolist()}
            if len(of) != 1:
                raise ConfigError("got a batch with rows of several data sets; expected rows of one: fix the sampler")
            dataset = of.pop()
            start = self._ends[dataset - 1] if dataset else 0
            yield Batch(dataset, rows - start)

    def left_out(self, epoch: int) -> int:
        """Return 0, as the sampler decides."""
        return 0


def set_epoch(sampler: Any, epoch: int) -> None:
    """Tell a sampler the number of the epoch, if it wants to know."""
    if callable(tell := getattr(sampler, "set_epoch", None)):
        tell(epoch)


def in_order(rows: TrainingRows, *, batch_size: int, drop_last: bool) -> Any:
    """Return a sampler that cuts rows into batches as they come."""
    return BatchSampler(SequentialSampler(range(len(rows))), batch_size, drop_last)


def own_sampler(make: Any, dataset: Any, *, batch_size: int, drop_last: bool, seed: int) -> Any:
    """Make a batch sampler by the user's class or function.

    Args:
        make: takes a data set and the options that the reference passes.
        dataset: as the user gave it.
        batch_size: rows of a batch.
        drop_last: leave out a last batch that is not full.
        seed: of the order.
    """
    return make(
        dataset,
        batch_size=batch_size,
        drop_last=drop_last,
        valid_label_columns=list(LABEL_COLUMNS),
        generator=torch.Generator().manual_seed(seed),
        seed=seed,
    )


def own_turns(make: Any, datasets: Sequence[Any], samplers: Sequence[Any], *, seed: int) -> Any:
    """Make a sampler over several data sets by the user's class or function."""
    generator = torch.Generator().manual_seed(seed)
    return make(ConcatDataset(list(datasets)), batch_samplers=list(samplers), generator=generator, seed=seed)
