"""Copies from a device to the host: what is started, and when it is waited for, with an imitated device."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from minisbert.model.devices import copy_to_host, side_stream_copies
from minisbert.model.encoding import collect


class Log:
    """A run, and copies that hold nothing until they are waited for; both log what happens."""

    def __init__(self, batches: int, *, fails_at: int | None = None) -> None:
        self.batches, self.fails_at = batches, fails_at
        self.events: list[str] = []

    def run(self) -> Iterator[tuple[int, Tensor]]:
        for batch in range(self.batches):
            if batch == self.fails_at:
                raise LookupError("out of memory")
            self.events.append(f"run {batch}")
            yield batch, torch.full((2, 3), float(batch))

    def start_copy(self, values: Tensor) -> Callable[[], Tensor]:
        batch = int(values[0, 0])
        copy = torch.full_like(values, torch.nan)
        self.events.append(f"start {batch}")

        def wait() -> Tensor:
            self.events.append(f"wait {batch}")
            return copy.copy_(values)

        return wait


def test_a_copy_is_waited_for_when_two_more_have_started() -> None:
    log = Log(4)
    for place, values in copy_to_host(log.run(), log.start_copy):
        log.events.append(f"use {place}")
        assert torch.equal(values, torch.full((2, 3), float(place)))
    start = ["run 0", "start 0", "run 1", "start 1", "run 2", "start 2", "wait 0", "use 0"]
    assert log.events == [*start, "run 3", "start 3", "wait 1", "use 1", "wait 2", "use 2", "wait 3", "use 3"]


@pytest.mark.parametrize("batches", [0, 1, 2, 3])
def test_few_batches_all_arrive(batches: int) -> None:
    log = Log(batches)
    assert [place for place, _ in copy_to_host(log.run(), log.start_copy)] == list(range(batches))
    assert [event for event in log.events if event.startswith("wait")] == [f"wait {n}" for n in range(batches)]


def test_an_error_of_the_run_comes_through() -> None:
    log = Log(5, fails_at=3)
    arrived = copy_to_host(log.run(), log.start_copy)
    assert next(arrived)[0] == 0
    with pytest.raises(LookupError, match="out of memory"):
        next(arrived)


class Run:
    """A run over 10 rows in batches of 3, in a mixed order."""

    truncated = 0

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.expected = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        order = np.random.default_rng(1).permutation(10)
        for start in range(0, 10, 3):
            rows = order[start : start + 3]
            values = torch.from_numpy(self.expected[rows]).to(self.device)
            yield rows, values
            del values  # its memory is free for what comes next
            torch.full((3, 4), torch.nan, device=self.device)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("place", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_collect_puts_each_row_at_its_place(device: str, place: str) -> None:
    run = Run(device)
    values = torch.full((10, 4), torch.nan, device=place)
    assert collect(run, values) is values
    assert np.array_equal(values.cpu().numpy(), run.expected)


@pytest.mark.gpu
def test_some_columns_are_copied_from_a_gpu() -> None:
    wide = torch.randn(1_000, 64, device="cuda")
    assert torch.equal(side_stream_copies(wide.device)(wide[:, :20])(), wide[:, :20].cpu())
