"""JSON lines as columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import line_error, shown

Columns: TypeAlias = dict[str, list[Any]]

_PART = 4_096  # objects that become columns together
_DECODER = json.JSONDecoder()


def json_objects(path: Path, text: str, number: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of JSON lines, and the line of each; blank lines are left out.

    Args:
        path: where they are from.
        text: the lines, which end with line feeds or with carriage returns and line feeds.
        number: of the first line.

    Raises:
        InputError: a line is no object.
    """
    text, start, read = text.replace("\r\n", "\n"), 0, _DECODER.raw_decode
    size = len(text)
    while start < size:
        end = text.find("\n", start)
        end = size if end < 0 else end
        try:  # without a copy of the line, which is what most lines allow
            row, stop = read(text, start)
        except (ValueError, RecursionError):
            row, stop = None, start
        if stop != end or type(row) is not dict:
            line = text[start:end]
            row = _json_object(path, number, line) if line.strip() else None
        if row is not None:
            yield number, row
        start, number = end + 1, number + 1


def _json_object(path: Path, number: int, text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise line_error(path, number, f"{error}; expected one JSON object: fix the line") from None
    if not isinstance(row, dict):
        raise line_error(path, number, f"got a JSON {type(row).__name__}; expected an object: fix the line")
    return row


def from_objects(
    path: Path,
    rows: Iterable[tuple[int, dict[str, Any]]],
    *,
    noun: str = "line",
    fill: Sequence[str] = (),
    names: Sequence[str] = (),
) -> tuple[Columns, list[int]]:
    """Return numbered objects as columns, and their numbers.

    Args:
        path: where they are from.
        rows: the objects, with the same keys.
        noun: what they are numbered by.
        fill: see `read_objects`.
        names: the keys; by default those of the first object.
    """
    columns: Columns = {name: [] for name in names}
    numbers: list[int] = []
    rows = iter(rows)
    while part := list(islice(rows, _PART)):
        columns = columns or {name: [] for name in part[0][1]}
        if _extend(columns, [row for _, row in part]):
            numbers += [number for number, _ in part]
        else:
            _append(path, part, columns, numbers, noun, fill)
    return columns, numbers


def _extend(columns: Columns, rows: Sequence[dict[str, Any]]) -> bool:
    """Extend columns by rows, all at once, if each has just their keys; else return False."""
    if set(map(len, rows)) != {len(columns)}:
        return False
    try:
        values = [[row[name] for row in rows] for name in columns]
    except KeyError:
        return False
    for column, more in zip(columns.values(), values, strict=True):
        column += more
    return True


def _append(
    path: Path,
    rows: Iterable[tuple[int, dict[str, Any]]],
    columns: Columns,
    numbers: list[int],
    noun: str,
    fill: Sequence[str],
) -> None:
    for number, row in rows:
        if fill and row.keys() != columns.keys():
            columns |= {name: [None] * len(numbers) for name in fill if name in row and name not in columns}
            row = {name: row.get(name) for name in columns}
        if row.keys() != columns.keys():
            got, expected = shown(list(row)), shown(list(columns))
            raise line_error(path, number, f"got the keys {got}; expected {expected}: fix the {noun}", noun=noun)
        for name, value in row.items():
            columns[name].append(value)
        numbers.append(number)
