"""Numbers that are not finite: steps that change nothing because of them, and weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..data.sampling import Batch

MOST_SKIPPED = 10  # steps in a row; loss scaling in fp16, which halves its scale each time, seldom needs half as many
_SHOWN_ROWS = 16  # of a batch


class SkippedSteps:
    """Finds steps in a row whose gradients are not finite.

    Args:
        step: steps done before the first.
    """

    def __init__(self, step: int) -> None:
        self._step, self._in_a_row = step, 0
        self._norms: list[Tensor] = []

    def add(self, norm: Tensor) -> None:
        """Take the norm of the gradients of the next step, (), without reading it."""
        self._norms.append(norm.clone())  # what a recorded update returns holds only until the next one

    @property
    def now(self) -> bool:
        """Whether the last step whose norm was read was skipped."""
        return self._in_a_row > 0

    def first(self) -> int | None:
        """The first of `MOST_SKIPPED` steps in a row, if there are so many; reads all norms, at once."""
        if not self._norms:
            return None
        finite = torch.stack(self._norms).isfinite().tolist()
        self._norms = []
        for one in finite:
            self._step += 1
            self._in_a_row = 0 if one else self._in_a_row + 1
            if self._in_a_row == MOST_SKIPPED:
                return self._step - MOST_SKIPPED + 1
        return None


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether there is no infinity and no NaN in any tensor."""
    return bool(torch.stack([tensor.detach().isfinite().all() for tensor in tensors]).all())


def shown_rows(batches: Sequence[Batch], names: Sequence[str]) -> str:
    """The rows of batches, for a message, with the names of their data sets."""
    shown = []
    for dataset, rows in batches:
        first, more = ", ".join(map(str, rows[:_SHOWN_ROWS].tolist())), len(rows) - _SHOWN_ROWS
        shown.append(f"rows {first}{f' and {more} more' if more > 0 else ''} of {names[dataset]}")
    return "; ".join(shown)
