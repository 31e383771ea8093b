"""What `encode` takes: one text, or several texts and pairs of texts."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, TypeAlias

import numpy as np

from .errors import InputTypeError

Pair: TypeAlias = tuple[str, str]
Text: TypeAlias = "str | Pair"


def read_inputs(inputs: Any) -> tuple[list[Text], bool]:
    """Return the texts and pairs of `inputs`, and whether it was a single text.

    A string is a single text. Anything with a length and an order holds several entries: lists, tuples, arrays,
    pandas.Series. An entry that is itself a list or tuple of two strings is a pair, to be embedded jointly.

    Raises:
        InputTypeError: `inputs` has no order or no length, or an entry is neither a string nor a pair.
    """
    if isinstance(inputs, str):
        return [inputs], True
    if isinstance(inputs, np.ndarray) and inputs.ndim:
        inputs = inputs.tolist()  # (n,) texts, (n, 2) pairs
    unordered = isinstance(inputs, (bytes, Mapping, Set))
    if unordered or not hasattr(inputs, "__len__") or getattr(inputs, "ndim", 1) != 1:
        raise InputTypeError(
            f"got {type(inputs).__name__} for texts; expected a string or a list of strings: put the texts in a list, "
            f"or give a stream of them to encode_iter"
        )
    entries = list(inputs)
    for row, entry in enumerate(entries):
        if not isinstance(entry, str):
            entries[row] = _pair(entry, row)
    return entries, False


def with_prompt(texts: list[Text], prompt: str) -> list[Text]:
    """Put `prompt` before each text, and before the first text of each pair."""
    if not prompt:
        return texts
    return [prompt + text if isinstance(text, str) else (prompt + text[0], text[1]) for text in texts]


def _pair(entry: Any, row: int) -> Pair:
    if isinstance(entry, (list, tuple)) and len(entry) == 2 and all(isinstance(text, str) for text in entry):
        return entry[0], entry[1]
    raise InputTypeError(
        f"texts[{row}] is {repr(entry)[:60]} of type {type(entry).__name__}; expected a string, or a pair of two "
        f'strings: drop the entry or pass str(value) or ""'
    )
