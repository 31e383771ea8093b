"""Batch samplers: what is in a batch, how many there are, and the options that are refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, ConcatDataset, RandomSampler

from minisbert.compat.samplers import (
    BatchSamplers,
    DefaultBatchSampler,
    GroupByLabelBatchSampler,
    MultiDatasetBatchSamplers,
    MultiDatasetDefaultBatchSampler,
    NoDuplicatesBatchSampler,
    ProportionalBatchSampler,
    RoundRobinBatchSampler,
)
from minisbert.errors import ConfigError, InputError


class Rows:
    """The methods of a data set that samplers use."""

    def __init__(self, **columns: list[Any]) -> None:
        self._columns = columns
        self.column_names = list(columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self._columns[key]
        return {name: values[key] for name, values in self._columns.items()}

    def remove_columns(self, names: list[str]) -> Rows:
        return Rows(**{name: values for name, values in self._columns.items() if name not in names})


ROWS = Rows(text=[f"text {row % 7}" for row in range(30)], label=[row % 4 for row in range(30)])


def test_names() -> None:
    assert BatchSamplers("no_duplicates") is BatchSamplers.NO_DUPLICATES == "no_duplicates"
    assert MultiDatasetBatchSamplers.ROUND_ROBIN.value == "round_robin"
    with pytest.raises(ValueError, match="none"):
        BatchSamplers("none")


def test_default() -> None:
    sampler = DefaultBatchSampler(RandomSampler(range(10)), 4, False)
    assert [len(batch) for batch in sampler] == [4, 4, 2]
    assert (len(sampler), len(DefaultBatchSampler(range(10), 4, True))) == (3, 2)
    assert isinstance(sampler, BatchSampler)


@pytest.mark.parametrize("hashed", [False, True])
def test_no_duplicates(hashed: bool) -> None:
    generator = torch.Generator()
    sampler = NoDuplicatesBatchSampler(ROWS, 5, False, ["label"], generator, 3, precompute_hashes=hashed)
    first, again = list(sampler), list(sampler)
    assert first == again
    assert sorted(row for batch in first for row in batch) == list(range(30))
    assert all(len({row % 7 for row in batch}) == len(batch) for batch in first)
    sampler.set_epoch(1)
    assert list(sampler) != first


def test_no_duplicates_makes_up_for_batches_that_are_left_out() -> None:
    rows = Rows(text=["same"] * 6 + [f"text {row}" for row in range(14)])
    sampler = NoDuplicatesBatchSampler(rows, 5, True, generator=torch.Generator(), seed=1)
    batches = list(sampler)
    assert {len(batch) for batch in batches} == {5}
    assert len(batches) == len(sampler) == 4
    same = NoDuplicatesBatchSampler(Rows(text=["same"] * 6), 2, True)
    with pytest.warns(UserWarning, match="got 0 batches of 2 rows without a text twice; expected 3"):
        assert list(same) == []
    assert list(NoDuplicatesBatchSampler(Rows(text=[]), 2, True)) == []


def test_values_of_any_kind_are_compared() -> None:
    """Numbers by their text, others by their content, functions by themselves."""
    rows = Rows(one=[1, 1.0, "1", [1, {"a": 2}], [1, {"a": 2}], {1, 2}, {1, 2}, lambda: None])
    batches = list(NoDuplicatesBatchSampler(rows, 8, False, generator=torch.Generator()))
    assert [len(batch) for batch in batches] == [5, 3]
    assert all(len({place for place in (0, 2) if place in batch}) < 2 for batch in batches)


def test_group_by_label() -> None:
    sampler = GroupByLabelBatchSampler(ROWS, 8, False, ["score", "label"], torch.Generator(), 3)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert all(min(Counter(row % 4 for row in batch).values()) >= 2 for batch in batches)
    full = GroupByLabelBatchSampler(ROWS, 8, True, ["label"], None, 3)
    assert len(full) == len(list(full)) == 3
    with pytest.raises(ConfigError, match="an even number from 4"):
        GroupByLabelBatchSampler(ROWS, 7, False, ["label"])
    with pytest.raises(ConfigError, match="expected a label among them"):
        GroupByLabelBatchSampler(ROWS, 8, False, ["score"])
    with pytest.raises(InputError, match="label"):
        GroupByLabelBatchSampler(Rows(label=[1, 1, 2]), 4, False, ["label"])


@pytest.mark.parametrize("kind", [RoundRobinBatchSampler, ProportionalBatchSampler])
def test_several(kind: type[MultiDatasetDefaultBatchSampler]) -> None:
    parts: list[Any] = [Rows(text=[f"{number} {row}" for row in range(count)]) for number, count in ((0, 12), (1, 5))]
    below: list[Any] = [NoDuplicatesBatchSampler(part, 4, False, generator=torch.Generator()) for part in parts]
    sampler = kind(ConcatDataset(parts), below, torch.Generator(), 7)
    batches = list(sampler)
    assert len(batches) == len(sampler) == (4 if kind is RoundRobinBatchSampler else 5)
    assert all(len({row < 12 for row in batch}) == 1 for batch in batches)
    if kind is ProportionalBatchSampler:
        assert sorted(row for batch in batches for row in batch) == list(range(17))
    sampler.set_epoch(2)
    assert [one.epoch for one in below] == [2, 2]
    with pytest.raises(ConfigError, match="got 1 batch samplers for 2 data sets"):
        kind(ConcatDataset(parts), below[:1])


def test_the_base_is_abstract() -> None:
    with pytest.raises(TypeError):
        MultiDatasetDefaultBatchSampler(ConcatDataset([range(3)]), [BatchSampler(range(3), 2, False)])  # type: ignore[abstract]
