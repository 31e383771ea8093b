"""Rows of any shape as one table of named columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, InputTypeError
from .readers import read_columns


@dataclass(frozen=True)
class Table:
    """Named columns of equal length.

    Attributes:
        columns: name to values, in order.
        source: where the rows come from, for messages.
        lines: the line of the source each row stands on, or None where it has no lines.
    """

    columns: dict[str, list[Any]]
    source: str = "the data"
    lines: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def at(self, row: int) -> str:
        """How to call a row in a message: its line in a file, its index elsewhere."""
        return f"{self.source}, line {self.lines[row]}" if self.lines else f"row {row} of {self.source}"


def as_table(data: Any) -> Table:
    """Read rows from a path, a list of dicts or tuples, a dict of columns, or anything iterable of rows.

    Objects with `texts` and `label`, as the reference's InputExample, count as rows too.

    Raises:
        InputError: rows differ in shape, or there are none.
        InputTypeError: `data` is nothing that holds rows.
    """
    if isinstance(data, Table):
        table = data
    elif isinstance(data, (str, Path)):
        columns, lines = read_columns(Path(data))
        table = Table(columns, source=str(data), lines=lines)
    elif isinstance(data, Mapping):
        for name, values in data.items():
            if isinstance(values, Iterator):
                raise InputTypeError(
                    f"column {name} is a {type(values).__name__}; expected a list: pass list(...) of it"
                )
        table = Table({str(name): _column(str(name), values) for name, values in data.items()})
        sizes = {name: len(values) for name, values in table.columns.items()}
        if len(set(sizes.values())) > 1:
            raise InputError(
                f"got columns of different lengths {sizes}; expected as many values in each: fill the gaps"
            )
    elif isinstance(data, Iterable) and getattr(data, "ndim", None) != 0:
        table = _from_rows(list(data))
    else:
        raise InputTypeError(
            f"got {type(data).__name__} as data; expected a path, rows, or a dict of columns: pass one of them"
        )
    if not len(table):
        raise InputError(f"{table.source} holds no rows; expected at least one: check where the rows come from")
    return table


def _from_rows(rows: list[Any]) -> Table:
    if not rows:
        return Table({})
    rows = [_plain(row) for row in rows]
    first = rows[0]
    if isinstance(first, Mapping):
        for number, row in enumerate(rows):
            if not isinstance(row, Mapping) or row.keys() != first.keys():
                got = list(row) if isinstance(row, Mapping) else type(row).__name__
                raise InputError(f"row {number} has {got}; expected the keys of the first row, {list(first)}: mend it")
        return Table({str(name): [row[name] for row in rows] for name in first})
    if isinstance(first, (list, tuple)):
        for number, row in enumerate(rows):
            if not isinstance(row, (list, tuple)) or len(row) != len(first):
                size = len(row) if isinstance(row, (list, tuple)) else f"a {type(row).__name__}, not"
                raise InputError(
                    f"row {number} has {size} value(s); expected {len(first)}, as in the first row: mend it"
                )
        return Table({f"column_{i}": [row[i] for row in rows] for i in range(len(first))})
    raise InputTypeError(
        f"row 0 is a {type(first).__name__}; expected a dict, tuple or list: put the texts and label of a row in one"
    )


def _column(name: str, values: Any) -> list[Any]:
    if hasattr(values, "column_names"):
        raise InputTypeError(f"got several data sets; expected the rows of one: pass data[{name!r}]")
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise InputTypeError(
            f"column {name} is a {type(values).__name__}; expected a list: put one value for each row in it"
        )
    if hasattr(values, "tolist"):  # arrays and tensors
        try:
            result = values.tolist()
        except RuntimeError:  # a tensor that holds no numbers
            result = None
        if not isinstance(result, list):
            raise InputTypeError(f"column {name} holds no values; expected a list: put one value for each row in it")
        return result
    return list(values)


def _plain(row: Any) -> Any:
    texts = getattr(row, "texts", None)
    if texts is None:
        return row
    if not isinstance(texts, (list, tuple)):
        raise InputTypeError(f"got an example whose texts are a {type(texts).__name__}; expected a list of texts")
    named = {f"sentence_{number}": text for number, text in enumerate(texts)}
    label = getattr(row, "label", None)
    return named if label is None else {**named, "label": label}


def select(table: Table, columns: Sequence[str]) -> Table:
    """Only the named columns, in that order.

    Raises:
        InputError: there is no column of that name, or one is named twice.
        InputTypeError: the names are no list of texts.
    """
    if isinstance(columns, str) or not isinstance(columns, Sequence) or not all(isinstance(n, str) for n in columns):
        raise InputTypeError(
            f"got {columns!r} as columns; expected names: pass a list of some of {list(table.columns)}"
        )
    if not columns or len(set(columns)) < len(columns):
        raise InputError(
            f"got the columns {list(columns)} to use; expected each name once: name some of {list(table.columns)}"
        )
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(
            f"there is no {missing[0]!r} in {table.source}; expected some of {list(table.columns)}: check the names"
        )
    chosen = {name: table.columns[name] for name in columns}
    return Table(chosen, table.source, table.lines)
