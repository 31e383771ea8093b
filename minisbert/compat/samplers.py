"""Batch samplers of the reference: they draw from a generator what the reference's draw, and give the same batches."""

from __future__ import annotations

import math
import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterator
from enum import Enum
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, ConcatDataset

from ..data.label_groups import LabelGroups
from ..data.rows import SMALLEST_GROUPED
from ..data.sampling import without_duplicates
from ..errors import ConfigError, warn

__all__ = [
    "BatchSamplers",
    "DefaultBatchSampler",
    "GroupByLabelBatchSampler",
    "MultiDatasetBatchSamplers",
    "MultiDatasetDefaultBatchSampler",
    "NoDuplicatesBatchSampler",
    "ProportionalBatchSampler",
    "RoundRobinBatchSampler",
    "SetEpochMixin",
]

_PLAIN = (str, int, float, bool, bytes, type(None), np.integer, np.floating, np.bool_)
_NO_TEXTS = frozenset({"dataset_name"})
_MORE_PASSES = 2  # over the rows, where one gives fewer batches than promised


class BatchSamplers(str, Enum):
    """Names of the ways to make batches of a data set."""

    BATCH_SAMPLER = "batch_sampler"
    NO_DUPLICATES = "no_duplicates"
    NO_DUPLICATES_HASHED = "no_duplicates_hashed"
    GROUP_BY_LABEL = "group_by_label"


class MultiDatasetBatchSamplers(str, Enum):
    """Names of the orders of the batches of several data sets."""

    ROUND_ROBIN = "round_robin"
    PROPORTIONAL = "proportional"


class SetEpochMixin:
    """Part of a sampler whose order differs from epoch to epoch.

    Attributes:
        epoch: number of the epoch, from 0.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch."""
        self.epoch = epoch


class DefaultBatchSampler(SetEpochMixin, BatchSampler):
    """Batches of what a sampler gives, in its order.

    Args:
        dataset: the sampler, or anything else that gives indices of rows.
        batch_size: rows of a full batch.
        drop_last: leave out a last batch that is not full.
        valid_label_columns: names that a column of labels may have.
        generator: what subclasses draw from; None for torch's own.
        seed: seed of the generator, to which the epoch is added.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=drop_last)
        self.valid_label_columns, self.generator, self.seed = valid_label_columns, generator, seed

    def seed_generator(self) -> None:
        """Seed the generator, if there is one, for the epoch."""
        _seed(self.generator, self.seed, self.epoch)


class NoDuplicatesBatchSampler(DefaultBatchSampler):
    """Batches in which no text is repeated, in any column; a row that would repeat one waits for a later batch.

    With `drop_last`, batches that are not full are left out, and more passes over the rows make up for them.

    Args:
        dataset: rows by index, with `column_names`.
        batch_size: rows of a full batch.
        drop_last: leave out batches that are not full.
        valid_label_columns: names that a column of labels may have; labels may be repeated.
        generator: what is drawn from; None for torch's own.
        seed: seed of the generator, to which the epoch is added.
        precompute_hashes: not used; what a row holds is read once in any case.
        precompute_num_proc: not used.
        precompute_batch_size: not used.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
        precompute_hashes: bool = False,
        precompute_num_proc: int | None = None,
        precompute_batch_size: int = 1000,
    ) -> None:
        super().__init__(dataset, batch_size, drop_last, valid_label_columns, generator, seed)
        labels = [name for name in dataset.column_names if name in (valid_label_columns or [])]
        self.dataset = dataset.remove_columns(labels) if labels else dataset
        self.precompute_hashes, self.precompute_num_proc = precompute_hashes, precompute_num_proc
        self.precompute_batch_size = precompute_batch_size
        self._values: list[frozenset[int]] | None = None

    def __iter__(self) -> Iterator[list[int]]:
        self.seed_generator()
        promised, made = len(self), 0
        for number in range(1 + _MORE_PASSES):
            for batch in self._one_pass():
                yield batch
                made += 1
                if number and made >= promised:
                    return
            if made >= promised or not made:
                break
        if made < promised:
            warn(
                f"got {made} batches of {self.batch_size} rows without a text twice; expected {promised}, but too many "
                f"rows share a text: make batches smaller"
            )

    def _one_pass(self) -> Iterator[list[int]]:
        if self._values is None:
            self._values = self._read()
        order = torch.randperm(len(self.dataset), generator=self.generator).tolist()
        for batch in without_duplicates(order, self._values, self.batch_size):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def _read(self) -> list[frozenset[int]]:
        """Return what each row holds, as numbers."""
        numbers: dict[str, int] = {}
        return [
            frozenset(
                numbers.setdefault(_key(value), len(numbers))
                for name, value in self.dataset[row].items()
                if name not in _NO_TEXTS
            )
            for row in range(len(self.dataset))
        ]

    def __len__(self) -> int:
        rows = len(self.dataset)
        return rows // self.batch_size if self.drop_last else math.ceil(rows / self.batch_size)


class GroupByLabelBatchSampler(DefaultBatchSampler):
    """Batches in which every label has at least two rows, of at least two labels.

    Args:
        dataset: rows with `column_names`.
        batch_size: rows of a full batch: an even number from four.
        drop_last: leave out a last batch that is not full.
        valid_label_columns: names that the column of labels may have; the first that there is counts.
        generator: what is drawn from; None for torch's own.
        seed: seed of the generator, to which the epoch is added.

    Raises:
        ConfigError: the batch size is odd or too small, or there is no column of labels.
        InputError: fewer than two labels have two rows.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, batch_size, drop_last, valid_label_columns, generator, seed)
        if batch_size < SMALLEST_GROUPED or batch_size % 2:
            raise ConfigError(f"got batch_size={batch_size}; expected an even number from {SMALLEST_GROUPED}")
        name = next((name for name in valid_label_columns or [] if name in dataset.column_names), None)
        if name is None:
            raise ConfigError(
                f"got the columns {list(dataset.column_names)}; expected a label among them: call one of them one of "
                f"{valid_label_columns}"
            )
        self.dataset = dataset
        self._groups = LabelGroups(list(dataset[name]), batch_size=batch_size, source="the data set")

    def __iter__(self) -> Iterator[list[int]]:
        self.seed_generator()
        for batch in self._groups.epoch(self.generator):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self) -> int:
        return self._groups.rows // self.batch_size if self.drop_last else self._groups.batches


class MultiDatasetDefaultBatchSampler(SetEpochMixin, BatchSampler, ABC):
    """Base of the samplers of batches of several data sets.

    Args:
        dataset: the data sets, one after the other.
        batch_samplers: one for each data set.
        generator: what is drawn from; None for torch's own.
        seed: seed of the generator, to which the epoch is added.

    Raises:
        ConfigError: there is not one sampler for each data set.
    """

    def __init__(
        self,
        dataset: ConcatDataset[Any],
        batch_samplers: list[BatchSampler],
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        if len(dataset.datasets) != len(batch_samplers):
            raise ConfigError(
                f"got {len(batch_samplers)} batch samplers for {len(dataset.datasets)} data sets; expected one for each"
            )
        first = batch_samplers[0]
        super().__init__(dataset, batch_size=first.batch_size, drop_last=first.drop_last)
        self.dataset, self.batch_samplers, self.generator, self.seed = dataset, batch_samplers, generator, seed

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of all samplers."""
        super().set_epoch(epoch)
        for sampler in self.batch_samplers:
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)

    @abstractmethod
    def __iter__(self) -> Iterator[list[int]]: ...

    @abstractmethod
    def __len__(self) -> int: ...

    def starts(self) -> list[int]:
        """Return the index of the first row of each data set."""
        return [0, *accumulate(map(_length, self.dataset.datasets))][:-1]

    def seed_generator(self) -> None:
        """Seed the generator, if there is one, for the epoch."""
        _seed(self.generator, self.seed, self.epoch)


class RoundRobinBatchSampler(MultiDatasetDefaultBatchSampler):
    """A batch of each data set in turn, until one is used up.

    Args:
        dataset: the data sets, one after the other.
        batch_samplers: one for each data set.
        generator: what is drawn from; None for torch's own.
        seed: seed of the generator, to which the epoch is added.
    """

    def __iter__(self) -> Iterator[list[int]]:
        self.seed_generator()
        starts = self.starts()
        for turn in zip(*self.batch_samplers, strict=False):
            for start, batch in zip(starts, turn, strict=True):
                yield [start + row for row in batch]

    def __len__(self) -> int:
        return min(map(_length, self.batch_samplers)) * len(self.batch_samplers)


class ProportionalBatchSampler(MultiDatasetDefaultBatchSampler):
    """Batches of data sets that are drawn in proportion to the batches they have, until all are used up.

    Args:
        dataset: the data sets, one after the other.
        batch_samplers: one for each data set.
        generator: what is drawn from; None for torch's own.
        seed: seed of the generator, to which the epoch is added.
    """

    def __iter__(self) -> Iterator[list[int]]:
        self.seed_generator()
        starts = self.starts()
        turns = [number for number, sampler in enumerate(self.batch_samplers) for _ in range(_length(sampler))]
        order = torch.randperm(len(turns), generator=self.generator).tolist()
        batches = [iter(sampler) for sampler in self.batch_samplers]
        for turn in order:
            batch = next(batches[turns[turn]], None)
            if batch is not None:
                yield [starts[turns[turn]] + row for row in batch]

    def __len__(self) -> int:
        return sum(map(_length, self.batch_samplers))


def _seed(generator: torch.Generator | None, seed: int | None, epoch: int) -> None:
    if generator is not None and seed is not None:
        generator.manual_seed(seed + epoch)


def _length(sized: Any) -> int:
    return len(sized)


def _key(value: Any) -> str:
    """Return a text that is equal for equal values; of objects, for those that are pickled alike."""
    if isinstance(value, _PLAIN):
        return str(value)
    if isinstance(value, (list, tuple)):
        return str(value) if all(isinstance(one, _PLAIN) for one in value) else f"[{', '.join(map(_key, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name!r}: {_key(one)}" for name, one in value.items()) + "}"
    try:
        return pickle.dumps(value).hex()
    except Exception:  # objects raise errors of any type
        return str(value)
