"""The base of losses, which take embeddings and labels and know nothing of models or texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import InputError


class Loss(nn.Module):
    """Base of the losses.

    `forward(embeddings, labels)` takes one (batch, dim) tensor for each text column, in column order, and the labels,
    (batch,), or None; it returns a scalar. Losses compute in float32.

    The attributes declare what a loss needs of the rows and of the training loop: `check_rows` checks the rows before
    training, and the engine of the run reads the rest.

    Attributes:
        min_columns: smallest number of text columns.
        max_columns: largest number of text columns, or None for any.
        needs_labels: True if rows need a label.
        label_range: smallest and largest valid label, or None for any.
        recordable: True if the loss launches the same operations for all batches of a size and never waits for the
            device, so that training on a GPU may capture it as a CUDA graph.
    """

    min_columns: ClassVar[int] = 2
    max_columns: ClassVar[int | None] = None
    needs_labels: ClassVar[bool] = False
    label_range: tuple[float, float] | None = None
    recordable: bool = False

    def get_config_dict(self) -> dict[str, Any]:
        """Return the loss's parameters, with the reference's names, for the model card."""
        return {}

    def check_rows(self, texts: Sequence[str], labels: Sequence[float] | None) -> None:
        """Check that training rows fit the loss.

        Args:
            texts: names of the text columns.
            labels: one for each row, or None.

        Raises:
            InputError: they do not fit; the message is one line.
        """
        name = type(self).__name__
        most = self.max_columns
        if len(texts) < self.min_columns or (most is not None and len(texts) > most):
            wanted = f"{self.min_columns}" if most == self.min_columns else f"at least {self.min_columns}"
            wanted += " and a label, which is a number" if self.needs_labels else ""
            raise InputError(
                f"got {len(texts)} text column(s) {list(texts)}; {name} expects {wanted}: name the columns to use, in "
                f"order, such as anchor, positive"
            )
        if self.needs_labels and labels is None:
            raise InputError(
                f"got the text columns {list(texts)} and no labels; {name} expects a number for each row: call its "
                f"column label or score, or name the columns to use with the label's last"
            )
        if self.label_range is not None and labels is not None:
            low, high = min(labels), max(labels)
            if low < self.label_range[0] or high > self.label_range[1]:
                raise InputError(
                    f"got labels from {low:g} to {high:g}; {name} expects {self.label_range[0]:g} to "
                    f"{self.label_range[1]:g}: say which labels stand for 0 and 1, with "
                    f"scale=({_range(low, high, ', ')}) or --scale={_range(low, high, '-')}"
                )


def _range(low: float, high: float, between: str) -> str:
    return f"{math.floor(min(low, 0)):g}{between}{math.ceil(high):g}"


def aligned(embeddings: Sequence[Tensor], *, loss: str) -> list[Tensor]:
    """Return the columns in float32 at least, after checking that each has one row for each training row.

    Raises:
        InputError: their lengths differ.
    """
    rows = [len(column) for column in embeddings]
    if len(set(rows)) > 1:
        raise InputError(f"got columns of {rows} rows; {loss} expects one embedding of each column for each row")
    return [column.float() if column.dtype in (torch.float16, torch.bfloat16) else column for column in embeddings]


def check_labels(labels: Tensor | None, rows: int, *, loss: str) -> Tensor:
    """Return labels as a float (rows,) tensor.

    Raises:
        InputError: there are no labels, or not one for each row.
    """
    if labels is None:
        raise InputError(f"got no labels; {loss} expects one number for each of the {rows} rows")
    if labels.numel() != rows:
        raise InputError(f"got {labels.numel()} labels for {rows} rows; {loss} expects one for each row")
    return labels.float().view(-1)
