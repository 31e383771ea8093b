"""Read a column of labels: one number for each row, several, or a class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import shown
from .rows import Table

LabelType: TypeAlias = Literal["float", "int", "bool", "list"]
Labels: TypeAlias = list[float] | NDArray[np.float32]


def read_labels(table: Table, name: str, scale: tuple[float, float] | None) -> list[float]:
    """Return one number for each row.

    Args:
        table: the rows.
        name: of the column.
        scale: the labels that stand for 0 and 1, or None to take labels as they are.

    Raises:
        InputError: a label is no finite number, or outside the scale; the message names its row.
    """
    labels = []
    for row, value in enumerate(table.columns[name]):
        number = number_of(value)
        if number is None:
            got = f"column {name} holds {shown(value)}"
            raise table.error(row, f"{got}; expected a finite number as label: fix or drop the row")
        if scale is not None:
            low, high = map(float, scale)
            if not low <= number <= high:
                got = f"got the label {number:g}"
                raise table.error(row, f"{got}; expected {low:g} to {high:g}: fix the row or the scale")
            number = (number - low) / (high - low)
        labels.append(number)
    return labels


def read_vectors(table: Table, name: str) -> Labels:
    """Return lists of numbers, such as embeddings: (rows, size) or (rows, columns, size), float32.

    Lists of one number are read as that number.

    Raises:
        InputError: a label is no list of finite numbers, or has another size than the first; the message names its row.
    """
    values = table.columns[name]
    first = _array(values[0])
    result = np.empty((len(values), *(first.shape if first is not None else (0,))), dtype=np.float32)
    for row, value in enumerate(values):
        array = _array(value)
        if array is not None and first is not None and array.shape != first.shape:
            sizes = [" x ".join(map(str, one.shape)) or "1" for one in (array, first)]
            got = f"column {name} holds {sizes[0]} numbers"
            raise table.error(row, f"{got}; expected {sizes[1]}, as in the first row: fix or drop the row")
        if array is not None:
            with np.errstate(over="ignore"):
                result[row] = array
        if array is None or not np.isfinite(result[row]).all():
            got = f"column {name} holds {shown(value)}"
            raise table.error(row, f"{got}; expected a list of finite numbers as label: fix or drop the row")
    return result[:, 0].astype(np.float64).tolist() if result.shape[1:] == (1,) else result


def read_classes(table: Table, name: str) -> tuple[list[float], tuple[str, ...]]:
    """Return the number of each row's class, and the names of the classes, numbered in sorted order.

    Labels that are numbers are taken as they are, without names.

    Raises:
        InputError: a label is neither a number nor a name, or some are numbers and others names.
    """
    values = table.columns[name]
    if all(isinstance(value, str) for value in values) and any(number_of(value) is None for value in values):
        names = tuple(sorted(set(values)))
        numbers = {one: float(number) for number, one in enumerate(names)}
        return [numbers[value] for value in values], names
    labels = list(map(number_of, values))
    for row, (label, value) in enumerate(zip(labels, values, strict=True)):
        if label is None:
            got = f"column {name} holds {shown(value)}"
            raise table.error(row, f"{got}; expected classes, all numbers or all names: fix or drop the row")
    return [label for label in labels if label is not None], ()


def label_type(values: Sequence[Any]) -> LabelType:
    """Return the type of labels of one number in the data."""
    if all(isinstance(value, (bool, np.bool_)) for value in values):
        return "bool"
    whole = all(
        isinstance(value, (int, np.integer)) or (isinstance(value, str) and _spells_integer(value)) for value in values
    )
    return "int" if whole else "float"


def _spells_integer(text: str) -> bool:
    return text.strip().removeprefix("-").isdecimal()


def is_vector(value: Any) -> bool:
    """Return True for a list, array or tensor of numbers, or of such lists of numbers."""
    if isinstance(value, (list, tuple)):
        return bool(value) and (is_number(value[0]) or (isinstance(value[0], (list, tuple)) and is_vector(value[0])))
    kind = str(getattr(value, "dtype", ""))
    return getattr(value, "ndim", 0) in (1, 2) and kind.removeprefix("torch.").startswith(("float", "int", "bfloat"))


def _array(value: Any) -> NDArray[Any] | None:
    """Return a list, array or tensor of numbers as an array, or None."""
    if not is_vector(value):
        number = number_of(value)
        return None if number is None or isinstance(value, str) else np.array([number])
    if hasattr(value, "detach"):
        value = value.detach().cpu().float()
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        return None
    return array if array.dtype.kind in "iuf" and 0 not in array.shape else None


def is_number(value: Any) -> bool:
    """Return True for a number of Python, numpy or decimal, also NaN."""
    if isinstance(value, np.timedelta64):  # which numpy counts among the integers
        return False
    if isinstance(value, (int, float, np.integer, np.floating, np.bool_)):
        return True
    from decimal import Decimal  # few need it

    return isinstance(value, Decimal)


def number_of(value: Any) -> float | None:
    """Return the finite number in a number, text, array or tensor, or None."""
    if not is_number(value) and not isinstance(value, str):
        if not hasattr(value, "item") or getattr(value, "shape", None) not in ((), (1,)):
            return None
        if (
            isinstance(value, (np.datetime64, np.timedelta64))
            or value is np.ma.masked
            or getattr(value, "is_meta", False)
        ):
            return None
        value = value.detach().cpu().item() if hasattr(value, "detach") else value.item()
    try:
        number = float(value)
    except (ValueError, OverflowError, TypeError):
        return None
    return number if math.isfinite(number) else None
