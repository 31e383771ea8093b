"""Columns of ids replaced by what the ids stand for in other data sets."""

from __future__ import annotations

import ast
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ...errors import ConfigError, InputError, InputTypeError, shown, warn

if TYPE_CHECKING:
    from datasets import Dataset

DEFAULT_LABEL_COLUMNS: tuple[str, ...] = ("label", "labels", "score", "scores")
_ENDINGS = {"_ids": "", "_id": "", "_idx": ""}
_PLURALS = {"y_ids": "ies", "_ids": "s", "_id": "", "_idx": ""}
Lookup: TypeAlias = "Dataset | tuple[Dataset, str] | tuple[Dataset, str, str]"


def resolve_ids(
    lookups: dict[str, Lookup],
    keep_columns: list[str] | tuple[str, ...] = DEFAULT_LABEL_COLUMNS,
    max_list_length: int | None = None,
    output_format: Literal["columns", "lists"] = "columns",
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Make a function of a batch of columns that replaces ids, for `set_transform` or `map(batched=True)` of datasets.

    A column has an id in each row or a list of them, also spelled as a text. The new column is called like that of the
    ids without "_id", "_ids" or "_idx".

    Args:
        lookups: for each column of ids a data set with a column "id" or "..._id" and one other; or (data set, column
            of ids) or (data set, column of ids, column of values). Other columns are left out.
        keep_columns: columns to keep as they are.
        max_list_length: keep only so many of each list, of values too.
        output_format: "columns" makes one column for each place in lists, which must be equally long; "lists" one
            column of lists, named in the plural.

    Raises:
        ConfigError: an option or a column is unknown, or cannot be told from others.
        InputTypeError: a lookup is no data set.
    """
    from datasets import Dataset, DatasetDict

    if isinstance(keep_columns, str):
        raise InputTypeError(f"got {keep_columns!r} as keep_columns; expected several: put it in a list")
    if max_list_length is not None and max_list_length < 1:
        raise ConfigError(f"got max_list_length={max_list_length}; expected at least 1, or None for all: pass one")
    if output_format not in ("columns", "lists"):
        raise ConfigError(f"got output_format={output_format!r}; expected 'columns' or 'lists': pass one of them")
    columns: dict[str, _Column] = {}
    indices: dict[tuple[int, str], dict[Hashable, int]] = {}
    for name, lookup in lookups.items():
        given = lookup if isinstance(lookup, tuple) else (lookup,)
        if not 1 <= len(given) <= 3 or isinstance(given[0], DatasetDict) or not isinstance(given[0], Dataset):
            got = f"a tuple of {len(given)}" if len(given) > 3 else type(given[0]).__name__
            raise InputTypeError(
                f"got {got} as the lookup of {name!r}; expected a Dataset, or one with names of its columns: pass one "
                f"split"
            )
        data, id_column, value_column = (*given, None, None)[:3]
        names: list[str] = data.column_names
        ids_like = [one for one in names if one == "id" or one.endswith("_id")]
        id_column = _chosen(names, id_column, ids_like, f"of ids in the lookup of {name!r}")
        others = [one for one in names if one != id_column]
        value_column = _chosen(names, value_column, others, f"of values in the lookup of {name!r}")
        plain = data.with_format(None)
        key = (id(data), id_column)
        if key not in indices:
            ids = plain[:][id_column] if len(plain) else []
            indices[key] = {value: row for row, value in enumerate(ids)}
            if len(indices[key]) < len(ids):
                warn(f"the lookup of {name!r} has several rows of one id; only the last of each is kept")
        columns[name] = _Column(plain.select_columns([value_column]), indices[key], value_column)
    return _Resolver(columns, tuple(keep_columns), max_list_length, output_format == "lists")


def _chosen(names: list[str], given: str | None, likely: list[str], what: str) -> str:
    """Return the name of a column: the given one, or the only likely one."""
    found = likely if given is None else [given] if given in names else []
    if len(found) == 1:
        return found[0]
    got = f"{len(found)} columns" if given is None else f"no column {given!r}"
    raise ConfigError(f"got {got} {what} among {names}; expected one: pass (data set, ids, values)")


@dataclass(frozen=True)
class _Column:
    """The values of a lookup by id.

    Attributes:
        data: a data set of one column.
        rows: row of each id.
        name: of the column.
    """

    data: Any
    rows: Mapping[Hashable, int]
    name: str

    def values(self, ids: Sequence[Any], source: str) -> list[Any]:
        """Return the value of each id; `source` is their column, for messages."""
        try:
            rows = [self.rows[one] for one in ids]
        except KeyError as error:
            raise KeyError(f"{error.args[0]!r} in the column {source!r} is not in its lookup") from None
        except TypeError:
            raise InputTypeError(
                f"got {shown(list(ids)[:3])} in the column {source!r}; expected ids as texts or numbers: call "
                f"with_format(None) on the data set"
            ) from None
        found: list[Any] = self.data[rows][self.name] if rows else []
        return found


@dataclass(frozen=True)
class _Resolver:
    """The function that `resolve_ids` makes; it can be pickled, for data loaders with processes."""

    columns: Mapping[str, _Column]
    keep: tuple[str, ...]
    most: int | None
    as_lists: bool

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the columns with values for the ids, and the columns to keep.

        Raises:
            KeyError: an id is not in its lookup.
            InputError: lists differ in length, or two columns have one name.
            InputTypeError: the batch is not a dict of lists.
        """
        if not isinstance(batch, Mapping):
            raise InputTypeError(f"got a batch as {type(batch).__name__}; expected a dict: call with_format(None)")
        result: dict[str, Any] = {}
        for source, column in self.columns.items():
            for name, values in self._resolved(source, column, _read(batch[source], source)):
                _add(result, name, values)
        for name in self.keep:
            if name in batch:
                values = _read(batch[name], name)
                listed = len(values) and not isinstance(values[0], (str, bytes)) and hasattr(values[0], "__len__")
                _add(result, name, [row[: self.most] for row in values] if listed else values)
        return result

    def _resolved(self, source: str, column: _Column, ids: Any) -> list[tuple[str, list[Any]]]:
        if not isinstance(ids, list):
            raise InputTypeError(
                f"got the column {source!r} as {type(ids).__name__}; expected a list: call with_format(None)"
            )
        if not ids or not isinstance(ids[0], (list, tuple)):
            return [(_renamed(source, _ENDINGS), column.values(ids, source))]
        lists = [row[: self.most] for row in ids]
        flat = iter(column.values([one for row in lists for one in row], source))
        values = [[next(flat) for _ in row] for row in lists]
        if self.as_lists:
            return [(_renamed(source, _PLURALS), values)]
        if len({len(row) for row in values}) > 1 or not values[0]:
            raise InputError(
                f"got lists of {sorted({len(row) for row in values})} ids in the column {source!r}; expected one "
                f"length, of at least 1: pass max_list_length, or output_format='lists'"
            )
        name = _renamed(source, _ENDINGS)
        return [(f"{name}_{place}", list(one)) for place, one in enumerate(zip(*values, strict=True), 1)]


def _renamed(name: str, endings: Mapping[str, str]) -> str:
    ending = next((one for one in endings if name.endswith(one)), "")
    return name.removesuffix(ending) + endings.get(ending, "")


def _read(values: Any, name: str) -> Any:
    """Return a column with lists that are spelled as texts as lists."""
    if not len(values) or not isinstance(values[0], str) or not values[0].lstrip().startswith("["):
        return values
    try:
        read = [ast.literal_eval(value) for value in values]
    except (ValueError, SyntaxError) as error:
        raise InputError(f"cannot read the lists in the column {name!r} ({error}); expected [..., ...]") from None
    if not all(isinstance(row, (list, tuple)) for row in read):
        raise InputError(f"got other values than lists in the column {name!r}; expected a list in each row")
    return [list(row) for row in read]


def _add(result: dict[str, Any], name: str, values: Any) -> None:
    if name in result:
        raise InputError(f"got two columns for the name {name!r}; expected one: rename a column of ids")
    result[name] = values
