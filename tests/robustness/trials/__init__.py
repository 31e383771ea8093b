"""What faults.py does on purpose."""

from __future__ import annotations

from typing import NamedTuple


class Trial(NamedTuple):
    """A line of the table."""

    what: str
    count: int
    survived: int
    lost: str
