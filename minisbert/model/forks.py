"""What a forked child computes with.

The threads that torch and our C++ compute with belong to the thread that started them, and a fork leaves them behind:
OpenMP would wait for them in the child without end. One thread needs no others.
"""

from __future__ import annotations

import os
import threading
from functools import cache

import torch


class _Here(threading.local):
    """Of each thread, and of the only one of a forked child: whether it has computed."""

    computed = False


_HERE = _Here()


def mark_computing() -> None:
    """Say that this thread computes: a child that is forked from it will do so with one thread."""
    if not torch.compiler.is_compiling() and not _HERE.computed:  # which torch.compile cannot trace
        _HERE.computed = True
        _watch()


@cache
def _watch() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_compute_alone)


def _compute_alone() -> None:
    if _HERE.computed:
        torch.set_num_threads(1)
