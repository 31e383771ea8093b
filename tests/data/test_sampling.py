"""The order of rows: one data set or several, with and without duplicates in a batch."""

from __future__ import annotations

import math
from collections import Counter
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, RandomSampler

from minisbert.data.label_groups import LabelGroups
from minisbert.data.roles import TrainingRows
from minisbert.data.rows import named_datasets
from minisbert.data.sampling import EpochSampler
from minisbert.errors import InputError


def numbered(count: int) -> TrainingRows:
    return TrainingRows({"a": [f"a{i}" for i in range(count)], "b": [f"b{i}" for i in range(count)]}, None, None, "")


def taken(sampler: EpochSampler, epoch: int = 0) -> list[tuple[int, list[int]]]:
    return [(dataset, rows.tolist()) for dataset, rows in sampler.epoch(epoch)]


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 1), (1, 8), (20, 8), (24, 8), (7, 2)])
def test_one_data_set(rows: int, batch_size: int) -> None:
    before = torch.get_rng_state()
    sampler = EpochSampler([numbered(rows)], batch_size=batch_size, seed=42)
    batches = [batch.rows for batch in sampler.epoch(3)]
    assert torch.equal(before, torch.get_rng_state())
    expected = torch.randperm(rows, generator=torch.Generator().manual_seed(45)).tolist()
    assert np.concatenate(batches).tolist() == expected
    assert len(batches) == len(sampler) == math.ceil(rows / batch_size)
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}


def test_seed_and_epoch_decide() -> None:
    def order(seed: int, epoch: int) -> list[Any]:
        return taken(EpochSampler([numbered(10)], batch_size=4, seed=seed), epoch)

    assert order(42, 1) == order(43, 0) != order(42, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 99), st.booleans())
def test_proportional_takes_every_row_once(sizes: list[int], batch_size: int, seed: int, unique: bool) -> None:
    datasets = [numbered(size) for size in sizes]
    sampler = EpochSampler(datasets, batch_size=batch_size, seed=seed, several="proportional", no_duplicates=unique)
    batches = taken(sampler, 2)
    assert len(batches) == len(sampler)
    assert Counter(dataset for dataset, _ in batches) == {
        number: math.ceil(size / batch_size) for number, size in enumerate(sizes)
    }
    assert sorted((dataset, row) for dataset, rows in batches for row in rows) == [
        (number, row) for number, size in enumerate(sizes) for row in range(size)
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 99))
def test_round_robin_takes_turns_until_one_is_used_up(sizes: list[int], batch_size: int, seed: int) -> None:
    sampler = EpochSampler([numbered(size) for size in sizes], batch_size=batch_size, seed=seed, several="round_robin")
    batches = taken(sampler)
    turns = math.ceil(min(sizes) / batch_size)
    assert [dataset for dataset, _ in batches] == list(range(len(sizes))) * turns
    assert len(batches) == len(sampler)
    smallest = sizes.index(min(sizes))
    assert sorted(row for dataset, rows in batches if dataset == smallest for row in rows) == list(range(min(sizes)))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdefghij")), min_size=1, max_size=40),
    st.integers(1, 8),
    st.integers(0, 99),
)
def test_no_text_twice_in_a_batch(pairs: list[tuple[str, str]], batch_size: int, seed: int) -> None:
    rows = TrainingRows({"x": [x for x, _ in pairs], "y": [y for _, y in pairs]}, None, None, "")
    sampler = EpochSampler([rows], batch_size=batch_size, seed=seed, no_duplicates=True)
    batches = [batch for _, batch in taken(sampler)]
    assert len(batches) == len(sampler) == math.ceil(len(pairs) / batch_size)
    used = [row for batch in batches for row in batch]
    assert len(set(used)) == len(used)
    for batch in batches:
        texts = [text for row in batch for text in set(pairs[row])]
        assert len(set(texts)) == len(texts)
        assert 1 <= len(batch) <= batch_size


def test_rows_that_wait_come_first_in_the_next_batch() -> None:
    rows = TrainingRows({"x": ["a", "a", "a", "b", "c", "d"]}, None, None, "")
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0)).tolist()
    repeated = [row for row in order if row < 3]
    others = [row for row in order if row >= 3]
    batches = [batch for _, batch in taken(EpochSampler([rows], batch_size=2, seed=0, no_duplicates=True))]
    assert [next(row for row in batch if row < 3) for batch in batches] == repeated
    assert [next(row for row in batch if row >= 3) for batch in batches] == others


@pytest.mark.parametrize(
    ("data", "several"),
    [
        ({"a": ["x", "y"], "b": ["z", "w"]}, False),
        ({"a": ["x", "y"], "label": [0.5, 1]}, False),
        ({"a": np.array(["x"]), "label": np.array([1.0])}, False),
        ([("x", "y")], False),
        ("train.tsv", False),
        ({}, False),
        ({"one": "a.tsv", "two": "b.tsv"}, True),
        ({"one": [("x", "y")], "two": [{"a": "x", "b": "y"}]}, True),
        ({"one": {"a": ["x"], "b": ["y"]}}, True),
        ({"one": numbered(2)}, True),
    ],
)
def test_several_data_sets_are_told_from_columns(data: Any, several: bool) -> None:
    assert (named_datasets(data) is data) == several


@pytest.mark.parametrize("batch_size", [4, 6, 16])
@pytest.mark.parametrize("seed", range(5))
def test_groups_by_label(batch_size: int, seed: int) -> None:
    labels = np.random.default_rng(seed).geometric(0.3, 101).tolist()
    rows = TrainingRows({"text": [str(row) for row in range(101)]}, labels, "label", "the data")
    sampler = EpochSampler([rows], batch_size=batch_size, seed=seed, group_by_label=True)
    for epoch in range(3):
        batches = [batch.rows.tolist() for batch in sampler.epoch(epoch)]
        assert len(batches) == len(sampler)
        assert all(len(batch) == batch_size for batch in batches[:-1])
        for batch in batches:
            counts = Counter(labels[row] for row in batch)
            assert len(counts) > 1
            assert min(counts.values()) > 1
        taken = [row for batch in batches for row in batch]
        assert len(taken) == len(set(taken)) == 101 - sampler.left_out(epoch)


def test_what_cannot_be_grouped_by_label() -> None:
    texts = {"text": ["a", "b", "c", "d"]}
    for labels, message in (
        (None, "the data has no label"),
        ([1, 1, 1, 0], r"1 label\(s\) with two rows or more, of 2"),
    ):
        rows = TrainingRows(texts, labels, "label", "the data")  # type: ignore[arg-type]
        with pytest.raises(InputError, match=message):
            EpochSampler([rows], batch_size=4, seed=1, group_by_label=True)


@pytest.mark.parametrize("no_duplicates", [False, True])
def test_data_sets_by_weight(no_duplicates: bool) -> None:
    sets = [numbered(1000), numbered(80)]
    sampler = EpochSampler(
        sets, batch_size=8, seed=3, several="proportional", no_duplicates=no_duplicates, weights=[1, 3]
    )
    assert len(sampler) == 135
    batches = taken(sampler)
    assert batches == taken(sampler) != taken(sampler, 1)
    by_set = [[rows for dataset, rows in batches if dataset == number] for number in (0, 1)]
    assert sum(map(len, by_set)) == 135
    assert 80 < len(by_set[1]) < 120  # three quarters, and not ten batches
    # Every row of the small one is seen as often as every other, in another order each time.
    rounds = [list(chain(*by_set[1][start : start + 10])) for start in range(0, 80, 10)]
    assert all(sorted(rows) == list(range(80)) for rows in rounds)
    assert len({tuple(rows) for rows in rounds}) == 8
    assert len({row for rows in by_set[0] for row in rows}) == sum(map(len, by_set[0]))


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 8), (16, 8), (20, 8), (7, 2)])
def test_draws_are_those_of_torch(rows: int, batch_size: int) -> None:
    ours, theirs = (torch.Generator().manual_seed(5) for _ in range(2))
    expected = BatchSampler(RandomSampler(range(rows), generator=theirs), batch_size, drop_last=False)
    batches = EpochSampler([numbered(rows)], batch_size=batch_size, seed=0)._shuffled(rows, ours)
    for got, wanted in zip(batches, expected, strict=True):
        assert got.tolist() == wanted
        assert torch.equal(ours.get_state(), theirs.get_state())
    assert torch.equal(ours.get_state(), theirs.get_state())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=4, max_size=60), st.sampled_from([4, 6, 8]), st.integers(0, 99))
def test_labels_in_an_array_are_grouped_as_those_in_a_list(labels: list[int], batch_size: int, seed: int) -> None:
    draws = [torch.Generator().manual_seed(seed) for _ in range(2)]
    try:
        listed = LabelGroups([float(label) for label in labels], batch_size=batch_size, source="rows")
    except InputError:
        return
    stored = LabelGroups(np.array(labels, dtype=np.float32), batch_size=batch_size, source="rows")
    batches = list(listed.epoch(draws[0]))
    assert batches == list(stored.epoch(draws[1]))
    assert (len(batches), sum(map(len, batches))) == (listed.batches, listed.rows) == (stored.batches, stored.rows)
