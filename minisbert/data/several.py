"""Several data sets under names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def several_datasets(data: Any) -> Mapping[str, Any] | None:
    """`data` itself if it is a mapping of names to data sets, or None if it is one data set.

    A mapping holds data sets if each value is something that has rows: a path, a dict, an object with column names,
    or a list of rows. A mapping of columns holds lists of texts and numbers.
    """
    if isinstance(data, Mapping) and data and all(_has_rows(value) for value in data.values()):
        return data
    return None


def _has_rows(value: Any) -> bool:
    if isinstance(value, (str, Path, Mapping)) or hasattr(value, "column_names") or hasattr(value, "texts"):
        return True
    if isinstance(value, Iterable) and hasattr(value, "__getitem__"):
        first = next(iter(value), None)
        return isinstance(first, (Mapping, list, tuple)) or hasattr(first, "texts")
    return False
