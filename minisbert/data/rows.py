"""Sources of rows (files, lists, columns, data sets) as one table of named columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..errors import InputError, InputTypeError, shown
from .readers import read_columns
from .sources import check_names, columns_of, is_source, row_as_mapping, rows_of, values_of

# The orders in which rows of one data set, and batches of several, are trained on; `sampling.py` makes them.
RowSampling: TypeAlias = Literal["batch_sampler", "no_duplicates", "group_by_label"]
SMALLEST_GROUPED = 4  # rows of a batch that is grouped by label: two of each of two labels
DatasetOrder: TypeAlias = Literal["proportional", "round_robin"]
_LIST_COLUMNS = ("query", "anchor", "pos", "neg")  # beginnings of the names of columns of lists


@dataclass(frozen=True)
class InputExample:
    """One training row, as code for the reference builds its data.

    Attributes:
        guid: not used.
        texts: the row's texts, in column order.
        label: a number, a list of numbers, the name of a class, or None if the loss needs none.
    """

    guid: str = ""
    texts: Sequence[str] = ()
    label: float | str | Sequence[Any] | None = None


def check_examples(examples: Any, *, what: str = "examples") -> list[InputExample]:
    """Return examples, ours or the reference's, as a list.

    Raises:
        InputTypeError: they are no sequence, or an entry has no list of texts; the message names the entry.
    """
    if isinstance(examples, (str, bytes, Mapping)) or not hasattr(examples, "__iter__"):
        raise InputTypeError(f"got {type(examples).__name__} for {what}; expected a list of InputExample: make one")
    entries = list(examples)
    for row, entry in enumerate(entries):
        texts = getattr(entry, "texts", None)
        if not isinstance(texts, Sequence) or isinstance(texts, str):
            got = f"has the texts {shown(texts)}" if hasattr(entry, "texts") else f"is {shown(entry)}"
            raise InputTypeError(
                f"{what}[{row}] {got}; expected an example of several texts: pass InputExample(texts=[...])"
            )
    return entries


@dataclass(frozen=True)
class Table:
    """Named columns of equal length.

    Attributes:
        columns: name to values, in order.
        source: origin of the rows, for messages.
        lines: the line of each row in the source, or None if the source has no lines.
        typed: numbers are numbers; in a .csv or .tsv file they are texts that spell them.
        first: number of the first row in the source.
    """

    columns: dict[str, list[Any]]
    source: str = "the data"
    lines: Sequence[int] | None = None
    typed: bool = True
    first: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def at(self, row: int) -> str:
        """Name a row for a message: by its line in a file, or else by its index."""
        return f"{self.source}, line {self.lines[row]}" if self.lines else f"row {self.first + row} of {self.source}"

    def error(self, row: int, problem: str) -> InputError:
        """Return the error to raise for a row."""
        return InputError(f"{self.at(row)}: {problem}")

    def select(self, columns: Sequence[str]) -> Table:
        """Return the named columns only, in that order.

        Raises:
            InputError: there is no column of that name, or a name is repeated.
            InputTypeError: the names are not a list of texts.
        """
        names = list(self.columns)
        is_list = isinstance(columns, Sequence) and not isinstance(columns, str)
        if not is_list or not all(isinstance(name, str) for name in columns):
            raise InputTypeError(f"got {shown(columns)} as columns; expected names: pass a list of some of {names}")
        if not columns or len(set(columns)) < len(columns):
            raise InputError(f"got the columns {list(columns)}; expected each name once: pass some of {names}")
        if missing := [name for name in columns if name not in self.columns]:
            raise InputError(f"there is no {missing[0]!r} in {self.source}; expected some of {names}: check the names")
        return replace(self, columns={name: self.columns[name] for name in columns})


def as_table(data: Any, columns: Any = None) -> Table:
    """Read rows from a path, a frame, table or data set, rows in any form, or a dict of columns.

    With `columns`, which `Table.select` takes later, others may be left out, such as images that are slow to decode.
    Rows are dicts, tuples (named or not), lists, objects with `texts` and `label` such as the reference's InputExample,
    or rows of sqlite3.

    Raises:
        InputError: rows differ in shape, or there are none.
        InputTypeError: `data` does not hold rows.
    """
    if isinstance(data, Table):
        table = data
    elif isinstance(data, (str, Path)):
        content = read_columns(Path(data))
        table = Table(content.columns, content.source, content.lines, content.typed)
    elif (read := columns_of(data, columns)) is not None:
        table = _from_columns(read)
    elif isinstance(data, Mapping):
        table = _from_columns(data)
    elif (rows := rows_of(data)) is not None:
        table = _from_rows(rows)
    else:
        raise InputTypeError(
            f"got {type(data).__name__} as data; expected a path, rows, or a dict of columns: pass one of them"
        )
    if not len(table):
        raise InputError(f"{table.source} holds no rows; expected at least one: check the source of the rows")
    return table


def named_datasets(data: Any) -> Mapping[str, Any] | None:
    """Return `data` if it maps names to data sets, or None if it is one data set.

    A mapping of data sets has values that hold rows: paths, dicts, frames, tables, lists of rows. A mapping of columns
    has lists of texts and numbers. Lists of lists are columns if all names begin with query, anchor, pos or neg, and
    else rows.

    Raises:
        InputError: all values are lists of lists of texts, equally many, and their names decide nothing.
    """
    if not isinstance(data, Mapping) or not data or not all(_holds_rows(value) for value in data.values()):
        return None
    if not all(isinstance(value, (list, tuple)) and isinstance(value[0], list) for value in data.values()):
        return data
    if all(str(name).lower().startswith(_LIST_COLUMNS) for name in data):
        return None
    texts = all(isinstance(one, str) for value in data.values() for one in value[0])
    if len(data) > 1 and texts and len({len(value) for value in data.values()}) == 1:
        raise InputError(
            f"got lists of lists of texts for {shown(list(data))}, which may be data sets or columns of lists; "
            f"expected one of them: make each row a tuple for data sets, or a dict with these names for columns"
        )
    return data


def _holds_rows(value: Any) -> bool:
    if isinstance(value, (str, Path, Mapping, Table)) or is_source(value) or hasattr(value, "texts"):
        return True
    if isinstance(value, Iterable) and hasattr(value, "__getitem__"):
        first = next(iter(value), None)
        return isinstance(row_as_mapping(first), (Mapping, list, tuple))
    return False


def _from_columns(columns: Mapping[Any, Any]) -> Table:
    for name, values in columns.items():
        if isinstance(values, Iterator):  # before any column is read
            raise InputTypeError(f"column {name} is a {type(values).__name__}; expected a list: pass list(...) of it")
    check_names(columns)
    table = Table({str(name): values_of(str(name), values) for name, values in columns.items()})
    sizes = {name: len(values) for name, values in table.columns.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"got columns of different lengths {sizes}; expected equal lengths: fill the gaps")
    return table


def _from_rows(rows: list[Any]) -> Table:
    if not rows:
        return Table({})
    rows = [row_as_mapping(row) for row in rows]
    first = rows[0]
    if isinstance(first, Mapping):
        for index, row in enumerate(rows):
            if not isinstance(row, Mapping) or row.keys() != first.keys():
                got = list(row) if isinstance(row, Mapping) else type(row).__name__
                raise InputError(
                    f"row {index} has {got}; expected the keys of the first row, {list(first)}: fix the row"
                )
        check_names(first)
        return Table({str(name): [row[name] for row in rows] for name in first})
    if isinstance(first, (list, tuple)):
        for index, row in enumerate(rows):
            if not isinstance(row, (list, tuple)):
                raise InputError(f"row {index} is a {type(row).__name__}; expected {len(first)} values: fix the row")
            if len(row) != len(first):
                raise InputError(
                    f"row {index} has {len(row)} value(s); expected {len(first)}, as in the first row: fix the row, or "
                    f"put several negatives of a row in one list"
                )
        return Table({f"column_{i}": [row[i] for row in rows] for i in range(len(first))})
    raise InputTypeError(
        f"row 0 is a {type(first).__name__}; expected a dict, tuple or list: put the texts and label of a row in one"
    )
