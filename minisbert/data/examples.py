"""The row type that code for the reference builds its data from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class InputExample:
    """One training row.

    Attributes:
        guid: not used.
        texts: the row's texts, in column order.
        label: a number, or None where the loss needs none.
    """

    guid: str = ""
    texts: Sequence[str] = ()
    label: float | None = None
