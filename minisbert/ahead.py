"""Items made in another thread, ahead of the one that uses them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """The same items in the same order, of which up to `depth` are made before they are asked for.

    They are made one at a time in a thread, which starts with the first item asked for. It sees the context variables
    of then, but not what torch keeps for each thread: gradient and inference mode, autocast, device and stream. An
    error comes out in its place. When this generator is closed or comes to its end, so do the thread, after the item
    it is at, and `items` if it is a generator.

    Args:
        items: where they come from.
        depth: at least 1.
    """
    source, context = iter(items), copy_context()

    def make() -> Item:
        return next(source)

    thread = ThreadPoolExecutor(1, thread_name_prefix="minisbert-ahead")
    try:
        made = deque(thread.submit(context.run, make) for _ in range(depth))
        while True:
            try:
                item = made.popleft().result()
            except StopIteration:
                return
            made.append(thread.submit(context.run, make))
            yield item
    finally:
        thread.shutdown(cancel_futures=True)
        if isinstance(source, Generator):
            source.close()
