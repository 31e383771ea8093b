"""End all ranks of a run soon after one of them has ended, with a line that says which one and why.

Collectives wait for a rank that is gone: with gloo until its connections close, which they never do if its machine is
gone or its process is stopped, and with nccl on a device. Their timeouts cannot tell such a rank from one that writes a
checkpoint. Therefore a thread of each rank counts upward in the store of the process group, and looks whether the
counts of the others go on.
"""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Any

from ..distributed import rank, world_size
from ..errors import PoolError, first_line, one_line
from .guards import StopSignal

_EVERY = 1.0  # seconds between two looks
_SILENT = 20  # looks at a count that does not change: looks, not seconds, since a paused machine pauses all ranks
_SILENT_IF_BROKEN = 3  # the same where a collective has failed, so that some rank is gone
_TO_END = 5  # looks until a rank whose main thread is stuck in a collective ends without it
_ENDED = "!"  # before the last word of a rank


class Watch:
    """Watch the other ranks of the process group for a block of code, and be watched by them.

    When one is gone, the collectives of the others fail or never return. In the first case the block ends with a
    PoolError, in the second the process ends with its message on standard error and status 1.

    Raises:
        PoolError: a collective has failed, because another rank ended or does not answer.
    """

    def __init__(self) -> None:
        self._done, self._found, self._broken = threading.Event(), threading.Event(), False
        self._reason = ""

    def __enter__(self) -> Watch:
        self._rank, self._world_size = rank(), world_size()
        if self._world_size > 1:
            from torch.distributed.distributed_c10d import _get_default_store

            # A connection of its own: one that waits in the main thread would make this one wait.
            store: Any = _get_default_store()
            self._store = store.clone()
            self._run = self._store.add(f"minisbert/{self._rank}/runs", 1)
            self._thread = threading.Thread(target=self._watch, name="minisbert-watch", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._world_size == 1:
            return
        lost = error is not None and _is_lost(error)
        try:
            if error is None:
                from torch.distributed import barrier

                barrier()  # none leaves, and takes the store with it, while others watch
            elif lost:
                self._broken = True
                with StopSignal():  # a launcher terminates those that are left, which say first why they end
                    self._found.wait(2 * _EVERY * (_SILENT_IF_BROKEN + 1))
                    raise PoolError(self._reason or _gone("a rank", "its connection broke")) from error
        finally:
            self._done.set()
            self._thread.join(_TO_END * _EVERY)
            if error is not None and not lost:
                self._write(f"{_ENDED}{type(error).__name__}: {first_line(error)}")

    def _watch(self) -> None:
        """Count, and look at the counts of the others, until the block has ended."""
        others = [other for other in range(self._world_size) if other != self._rank]
        seen, silent, count = dict.fromkeys(others, ""), dict.fromkeys(others, 0), 0
        while not self._reason and not self._done.wait(_EVERY):
            count += 1
            if not self._write(str(count)):
                self._reason = _gone("the process that the ranks met at", "it does not answer")
                break
            for other in others:
                word = self._read(other)
                silent[other] = silent[other] + 1 if word == seen[other] else 0
                seen[other] = word
            ended = next((other for other in others if seen[other].startswith(_ENDED)), None)
            first = max(others, key=silent.__getitem__)  # the others may have ended because of it
            if ended is not None:
                self._reason = _gone(f"rank {ended}", seen[ended].removeprefix(_ENDED))
            elif silent[first] >= (_SILENT_IF_BROKEN if self._broken else _SILENT):
                self._reason = _gone(f"rank {first}", "it was killed, is stopped, or its machine is gone")
        self._found.set()
        if self._reason and not self._done.wait(_TO_END * _EVERY):  # the main thread waits for what never comes
            os.write(2, f"minisbert: error: {one_line(self._reason)}\n".encode(errors="replace"))
            os._exit(1)

    def _write(self, word: str) -> bool:
        """Write a word of this rank; False if nobody keeps it."""
        try:
            self._store.set(self._key(self._rank), word)
        except RuntimeError:
            return False
        return True

    def _read(self, of: int) -> str:
        """Return the last word of a rank, or nothing if there is none yet."""
        try:
            key = self._key(of)
            return self._store.get(key).decode(errors="replace") if self._store.check([key]) else ""
        except RuntimeError:  # the next word is not taken either
            return ""

    def _key(self, of: int) -> str:
        return f"minisbert/{of}/{self._run}"


def _is_lost(error: BaseException) -> bool:
    """Return True for the error of a collective whose peer is gone."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or (type(error) is RuntimeError and "gloo" in str(error))


def _gone(who: str, why: str) -> str:
    return (
        f"got no answer from {who} ({why}); expected all ranks of a run: see what was printed before, and start them "
        f"again with resume=True (--resume), which goes on from the newest checkpoint"
    )
