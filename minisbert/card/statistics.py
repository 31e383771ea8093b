"""Columns of training rows in numbers, and the first rows as a card shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.roles import LabelType
from .facts import ColumnStatistics

_SHOWN_ROWS = 3
_SHOWN_CHARACTERS = 1000


def text_statistics(column: str, tokens: NDArray[Any]) -> ColumnStatistics:
    """A column of texts from the number of tokens of each."""
    values = {"min": int(tokens.min()), "mean": round(float(tokens.mean()), 2), "max": int(tokens.max())}
    return ColumnStatistics(column, "string", "text", tuple((name, f"{n} tokens") for name, n in values.items()))


def label_statistics(column: str, labels: Sequence[float], kind: LabelType) -> ColumnStatistics:
    """A column of labels: their range, or how often each stands there."""
    if kind == "float":
        array = np.asarray(labels, dtype=np.float64)
        values = {"min": array.min(), "mean": array.mean(), "max": array.max()}
        return ColumnStatistics(column, kind, "", tuple((name, str(round(float(n), 2))) for name, n in values.items()))
    counts = Counter(labels)
    about = "~" if len(counts) > 1 else ""
    shares = ((label_text(label, kind), f"{about}{counts[label] / len(labels):.2%}") for label in sorted(counts))
    return ColumnStatistics(column, kind, "", tuple(shares))


def samples(
    columns: Sequence[str], texts: Mapping[str, Sequence[str]], labels: Sequence[float], kind: LabelType
) -> tuple[tuple[str, ...], ...]:
    """The first rows; the column that is no text holds the labels, and long texts are cut."""
    shown = (
        [_shown(text) for text in texts[name][:_SHOWN_ROWS]]
        if name in texts
        else [label_text(label, kind) for label in labels[:_SHOWN_ROWS]]
        for name in columns
    )
    return tuple(zip(*shown, strict=True))


def label_text(label: float, kind: LabelType) -> str:
    """A label as it was given."""
    return str({"float": float, "int": int, "bool": bool}[kind](label))


def _shown(text: str) -> str:
    cut = f"{text[:_SHOWN_CHARACTERS]}..." if len(text) > _SHOWN_CHARACTERS else text
    return cut.replace("\r\n", "\n").replace("\r", "\n")
