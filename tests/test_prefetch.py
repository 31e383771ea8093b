"""Items made in another thread: their order, errors, context and number, and the end of the thread."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from contextvars import ContextVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minisbert import kernels
from minisbert.prefetch import prefetch

mode: ContextVar[str] = ContextVar("mode", default="nothing")


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


class Source:
    """Numbers from 0 on, with what was seen while they were made."""

    def __init__(self, count: int, *, fails_at: int | None = None) -> None:
        self.count, self.fails_at = count, fails_at
        self.made = 0
        self.threads: set[threading.Thread] = set()
        self.modes: set[tuple[str, str]] = set()
        self.closed = False
        self.news = threading.Condition()

    def numbers(self) -> Iterator[int]:
        try:
            for number in range(self.count):
                self.threads.add(threading.current_thread())
                self.modes.add((mode.get(), kernels.current_mode()))
                if number == self.fails_at:
                    raise LookupError(f"number {number}")
                with self.news:
                    self.made += 1
                    self.news.notify_all()
                yield number
        finally:
            self.closed = True

    def wait_for(self, count: int) -> None:
        with self.news:
            assert self.news.wait_for(lambda: self.made >= count, timeout=30)


@given(st.lists(st.integers(), max_size=20), st.integers(1, 5))
def test_same_items_in_the_same_order(items: list[int], depth: int) -> None:
    assert list(prefetch(items, depth)) == items
    assert list(prefetch((item for item in items), depth)) == items


def test_another_thread_makes_them() -> None:
    source = Source(10)
    assert sum(prefetch(source.numbers(), 3)) == 45
    assert len(source.threads) == 1
    assert threading.current_thread() not in source.threads
    assert source.closed


@pytest.mark.parametrize("depth", [1, 4])
def test_no_more_than_depth_are_made_ahead(depth: int) -> None:
    source = Source(50)
    with closing(prefetch(source.numbers(), depth)) as items:
        assert source.made == 0  # nothing begins before the first is asked for
        for number in items:
            source.wait_for(min(number + 1 + depth, 50))
            assert source.made <= number + 1 + depth
    assert source.made == 50


def test_an_error_comes_in_its_place() -> None:
    source = Source(10, fails_at=4)
    items = prefetch(source.numbers(), 3)
    assert [next(items) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(LookupError, match="number 4"):
        next(items)
    assert source.closed


def test_an_error_at_the_start() -> None:
    with pytest.raises(LookupError):
        next(prefetch(Source(1, fails_at=0).numbers(), 3))


@pytest.mark.parametrize("depth", [1, 8])
def test_the_consumer_stops_early(depth: int) -> None:
    source = Source(1_000_000)
    items = prefetch(source.numbers(), depth)
    assert next(items) == 0
    items.close()
    assert source.closed
    assert source.made <= 1 + depth
    made = source.made
    with pytest.raises(StopIteration):
        next(items)
    assert source.made == made


def test_the_consumer_fails() -> None:
    source = Source(1_000_000)

    def use() -> None:
        for number in prefetch(source.numbers(), 2):
            if number == 5:
                raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        use()
    gc.collect()
    assert source.closed


def test_what_is_asked_for_in_a_context_is_made_in_it() -> None:
    source = Source(5)
    token = mode.set("chosen")
    try:
        with kernels.use("reference"), torch.inference_mode():
            assert list(prefetch(source.numbers(), 2)) == [0, 1, 2, 3, 4]
            assert torch.is_inference_mode_enabled()
    finally:
        mode.reset(token)
    assert source.modes == {("chosen", "reference")}


def test_changes_of_context_stay_inside() -> None:
    def changing() -> Iterator[str]:
        for name in ("one", "two"):
            mode.set(name)
            yield mode.get()

    assert list(prefetch(changing(), 1)) == ["one", "two"]
    assert mode.get() == "nothing"


def test_one_inside_another() -> None:
    inner = Source(1_000_000)
    outer = prefetch((2 * number for number in prefetch(inner.numbers(), 2)), 2)
    assert [next(outer) for _ in range(3)] == [0, 2, 4]
    outer.close()
    gc.collect()
    assert inner.closed


def test_a_process_that_forgets_them_ends() -> None:
    code = "from itertools import count; from minisbert.prefetch import prefetch\n"
    code += "items = prefetch(count(), 3); print(next(items))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0\n"
    assert done.stderr == ""
