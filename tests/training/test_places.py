"""The place of a run among its rows, which other numbers of processes and other batch sizes go on from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minisbert.data.sampling import EpochSampler
from minisbert.errors import ConfigError
from minisbert.training import dataset
from minisbert.training.dataset import Place, TrainingBatches

ROWS = 35


class Rows:
    """As many rows as an EpochSampler needs to know of."""

    texts = {"a": [str(number) for number in range(ROWS)]}
    scores, source = None, "rows"

    def __len__(self) -> int:
        return ROWS

    def text_numbers(self) -> list[set[int]]:
        return [{number} for number in range(ROWS)]


class Made:
    """Makes batches of nothing but rows."""

    def tokens_of(self, rows: Any) -> int:
        return len(rows)


def batches(monkeypatch: pytest.MonkeyPatch, *, size: int, processes: int, **options: Any) -> TrainingBatches:
    monkeypatch.setattr(dataset, "world_size", lambda: processes)
    sampler = EpochSampler([Rows()], batch_size=size, seed=7, **options)
    return TrainingBatches([Made()], ["rows"], sampler, accumulation=1, on_epoch_start=lambda: None)


def taken(of: TrainingBatches, start: int, end: int) -> list[int]:
    """The rows of all steps after step `start`, up to step `end`."""
    made = [next(of._rest_of_epoch(step)) for step in range(start, end)]
    return [row for batches in made for _, rows in batches for row in rows.tolist()]


@pytest.mark.parametrize("options", [{}, {"no_duplicates": True}])
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_the_same_batches_are_divided_anew(
    processes: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = batches(monkeypatch, size=4, processes=2, **options)
    for step in range(1, 11):
        after = batches(monkeypatch, size=4, processes=processes, **options)
        changed = after.go_on(step, before.place(step))
        end = after.last_step(3)
        rows = [*taken(before, 0, step), *taken(after, step, end)]
        assert rows == [row for epoch in range(3) for _, batch in after._sampler.epoch(epoch) for row in batch.tolist()]
        assert after.place(end) == Place(3, 0, 4)
        assert after.epoch_after(end) == 3
        assert changed == (processes != 2)


@pytest.mark.parametrize(("size", "processes"), [(4, 2), (3, 1), (5, 3), (50, 1)])
def test_rows_are_cut_anew(size: int, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = batches(monkeypatch, size=6, processes=2)  # 3 steps an epoch
    order = taken(before, 0, 9)
    for step in range(10):
        after = batches(monkeypatch, size=size, processes=processes)
        after.go_on(step, before.place(step))
        middle = min(step + 2, after.last_step(3))
        again = batches(monkeypatch, size=size, processes=processes)  # interrupted once more
        again.go_on(middle, after.place(middle))
        end = after.last_step(3)
        assert again.last_step(3) == end
        rest = taken(again, middle, end)
        assert [*taken(before, 0, step), *taken(after, step, middle), *rest] == order
        assert taken(after, middle, end) == rest
        if step < 9:
            assert 0 < after.epoch_after(step + 1) - after.epoch_after(step) <= 1
        assert after.epoch_after(end) == 3


def test_rows_that_depend_on_the_batch_size_are_not_cut_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    before = batches(monkeypatch, size=4, processes=1, no_duplicates=True)
    after = batches(monkeypatch, size=8, processes=1, no_duplicates=True)
    assert not after.go_on(0, before.place(0))
    with pytest.raises(ConfigError, match="processes have 4 rows together"):
        after.go_on(4, before.place(4))
    assert after.go_on(9, before.place(9))  # between two epochs
    assert sorted(taken(after, 9, 14)) == list(range(ROWS))


def test_a_resumed_run_starts_its_epochs_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    made = batches(monkeypatch, size=6, processes=1)
    assert not made.go_on(4, made.place(4))
    assert [made.place(step).starts_epoch for step in range(7)] == [True, *[False] * 5, True]
    assert [made.epoch_after(step) for step in (3, 6)] == [0.5, 1]
    assert np.array_equal(next(made._sampler.after(0, 6)).rows, list(made._sampler.epoch(0))[1].rows)
