"""What one kind of fault did."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """A line of the table.

    Attributes:
        what: the fault.
        tried: how many times it was caused.
        survived: how many times all went as it should.
        lost: what went wrong the first time that something did, or "".
    """

    what: str
    tried: int
    survived: int
    lost: str
