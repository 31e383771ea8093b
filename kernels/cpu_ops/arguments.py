"""Validation of tensors before they are passed to C++, which does not check them."""

from __future__ import annotations

import torch
from torch import Tensor

from minisbert.errors import ConfigError


def pointer(value: Tensor | None) -> int | None:
    """Return the address of the elements."""
    return None if value is None else value.data_ptr()


def check(name: str, value: Tensor, rows: int | None, columns: int | None, dtype: torch.dtype) -> None:
    """Check the shape (None for any size) and dtype of an argument, which must be contiguous and on the CPU.

    Raises:
        ConfigError: it is something else.
    """
    wrong = (rows is not None and value.shape[0] != rows) or (columns is not None and value.shape[-1] != columns)
    if wrong or value.dtype != dtype or value.device.type != "cpu" or not value.is_contiguous():
        layout = "contiguous" if value.is_contiguous() else "not contiguous"
        raise ConfigError(
            f"got {name} of shape {list(value.shape)}, {value.dtype}, on {value.device}, {layout}; expected "
            f"{dtype} on the cpu, contiguous, {rows or 'any'} rows of {columns or 'any'}"
        )


def check_texts(offsets: Tensor, tokens: int) -> None:
    """Check that the offsets of texts, int32, go from 0 to the number of tokens.

    Raises:
        ConfigError: they do not.
    """
    check("offsets", offsets, None, None, torch.int32)
    if int(offsets[-1]) != tokens or int(offsets[0]):
        raise ConfigError(f"got offsets up to {int(offsets[-1])}; expected them to end at the {tokens} tokens")
