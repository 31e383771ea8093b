"""Objects that hold rows, told apart by kind: frames, tables, data sets, cursors, arrays, and plain rows.

Each is read by what it is. What has columns is never iterated, since a frame then gives the names of its columns.
Libraries are recognized by the names of their types, and none is imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any

from ..errors import InputError, InputTypeError, MinisbertError, first_line, warn

# What `datasets` calls the index of a pandas frame that it took over.
_INDEX_LEVEL = "__index_level_0__"
_LOADERS = (("torch.utils.data.dataloader", "DataLoader"), ("minisbert.data.loaders", "ExampleLoader"))
# Conversions to rows or columns by the method of a type that is not read itself, the first one it has.
_CONVERSIONS = {
    "collect": "collect()",  # lazy frames of polars, data frames of Spark
    "compute": "compute()",  # Dask
    "to_pandas": "to_pandas()",
    "to_pylist": "to_pylist()",
    "to_dicts": "to_dicts()",
    "to_dict": "to_dict('records')",
    "fetchall": "fetchall()",
}


def columns_of(data: Any, chosen: Any = None) -> dict[str, Any] | None:
    """Read the columns of a frame, table, data set, cursor or array with named fields; None for any other object.

    Only those in the list `chosen` are read if it names some of them and nothing else.

    Raises:
        InputError: two columns have one name, a name has several levels, or the library of the object cannot read it.
        InputTypeError: it has columns but cannot be read.
    """
    read = _reader(data)
    if read is None:
        if _has_columns(data):
            raise InputTypeError(f"got a {_type_name(data)} as data; expected rows or columns: {_conversion(data)}")
        return None
    try:
        names, columns = read(data)
        check_names(names)
        names = without_index(names)
        if isinstance(chosen, (list, tuple)) and chosen and all(name in names for name in chosen):
            names = list(chosen)
        return {name: columns(name) for name in names}
    except (MinisbertError, MemoryError):
        raise
    except Exception as error:  # libraries raise errors of any type, for a closed database or an image that is broken
        got = f"a {_type_name(data)} that cannot be read ({type(error).__name__}: {first_line(error)})"
        raise InputError(f"got {got}; expected rows: fix what it reads, or choose columns that can be read") from error


def check_names(names: Iterable[Any], *, source: str = "") -> None:
    """Raise InputError, which begins with the source, if two names of columns are the same as texts."""
    texts = [str(name) for name in names]
    if len(set(texts)) < len(texts):
        two = next(name for name in texts if texts.count(name) > 1)
        raise InputError(f"{source}got several columns called {two!r}; expected a different name for each: rename them")


def without_index(names: list[str]) -> list[str]:
    """Leave out, with a warning, the name of the column that holds the index of a pandas frame."""
    if _INDEX_LEVEL not in names or len(names) == 1:
        return names
    warn(f"the column {_INDEX_LEVEL}, the index of a pandas frame, is left out of the rows")
    return [name for name in names if name != _INDEX_LEVEL]


def is_source(value: Any) -> bool:
    """Return True if an object holds rows by its kind, so that a mapping of such objects is one of data sets."""
    return _reader(value) is not None or _has_columns(value) or _is_map_style(value) or _gives_batches(value)


def rows_of(data: Any) -> list[Any] | None:
    """Return the rows of an iterable or of a map-style data set as a list; None if it is neither.

    Raises:
        InputTypeError: it gives batches, not rows.
        InputError: a data set says that it has more rows than it has.
    """
    if _gives_batches(data):
        rows = "its dataset" if hasattr(data, "dataset") else "[row for batch in loader for row in batch]"
        kind = "DataLoader" if hasattr(data, "dataset") else type(data).__name__
        raise InputTypeError(f"got a {kind}, which gives batches; expected rows: pass {rows}, or call model.fit")
    if isinstance(data, Iterable) and getattr(data, "ndim", None) != 0:
        return list(data)
    try:
        return [data[index] for index in range(len(data))] if _is_map_style(data) else None
    except IndexError as error:
        got = f"a {_type_name(data)} of {len(data)} rows that lacks one ({first_line(error)})"
        raise InputError(f"got {got}; expected as many rows as its len(): fix its __len__") from error


def row_as_mapping(row: Any) -> Any:
    """Return a row whose values have names as a dict, and any other row as it is."""
    texts = getattr(row, "texts", None)
    if texts is not None and not isinstance(row, Mapping):
        if not isinstance(texts, (list, tuple)):
            raise InputTypeError(f"got an example whose texts are a {type(texts).__name__}; expected a list of texts")
        columns = {f"sentence_{number}": text for number, text in enumerate(texts)}
        label = getattr(row, "label", None)
        return columns if label is None else {**columns, "label": label}
    if isinstance(row, tuple) and hasattr(row, "_fields"):
        return dict(zip(row._fields, row, strict=True))
    if dataclasses.is_dataclass(row) and not isinstance(row, type):
        return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    if not isinstance(row, Mapping) and callable(getattr(row, "keys", None)) and hasattr(row, "__getitem__"):
        return {name: row[name] for name in row.keys()}  # noqa: SIM118  # a sqlite3.Row gives its values
    return row


def values_of(name: str, values: Any) -> list[Any]:
    """Return the values of a column as a list.

    Raises:
        InputTypeError: it is a data set of its own, a text, or not a list.
    """
    if is_source(values):
        raise InputTypeError(f"got several data sets; expected the rows of one: pass data[{name!r}]")
    expected = "expected a list: put one value for each row in it"
    if isinstance(values, (str, bytes, Mapping, Set)) or not isinstance(values, Iterable):
        raise InputTypeError(f"column {name} is a {type(values).__name__}; {expected}")
    if getattr(getattr(values, "dtype", None), "kind", "") in ("m", "M"):  # times, which tolist gives as numbers
        return list(values)
    convert = next(
        (getattr(values, name) for name in ("to_pylist", "tolist", "to_list") if hasattr(values, name)), None
    )
    if convert is None:
        return list(values)
    try:  # an array, tensor or series
        result = convert()
    except (RuntimeError, ValueError) as error:  # a tensor without data, a text or struct of Arrow that is none
        raise InputTypeError(f"column {name} cannot be read ({first_line(error)}); {expected}") from None
    if not isinstance(result, list):
        raise InputTypeError(f"column {name} holds no values; {expected}")
    return result


_Columns = tuple[list[str], Callable[[str], Any]]


def _reader(data: Any) -> Callable[[Any], _Columns] | None:
    """Return the function that reads the columns of an object, or None for an object of another kind."""
    package = type(data).__module__.partition(".")[0]
    name = type(data).__name__
    if package == "pandas" and name == "DataFrame":
        return _read_pandas
    if package == "polars" and name == "DataFrame":
        return lambda frame: (list(frame.columns), lambda column: frame[column].to_list())
    if package == "pyarrow" and name in ("Table", "RecordBatch"):
        return lambda table: (list(table.schema.names), lambda column: table.column(column).to_pylist())
    if package == "datasets" and name == "Dataset":
        return _read_dataset
    if hasattr(data, "fetchall") and (hasattr(data, "description") or hasattr(data, "columns")):
        return _read_cursor
    if isinstance(getattr(getattr(data, "dtype", None), "names", None), tuple):  # an array with named fields
        return lambda array: (list(array.dtype.names), lambda field: array[field].tolist())
    return None


def _read_pandas(frame: Any) -> _Columns:
    if frame.columns.nlevels > 1:
        raise InputError(
            f"got a DataFrame with {frame.columns.nlevels} levels of column names; expected one: join them, as in "
            f"frame.columns = ['_'.join(names) for names in frame.columns]"
        )
    places = {str(name): place for place, name in enumerate(frame.columns)}
    return [str(name) for name in frame.columns], lambda name: frame.iloc[:, places[name]].tolist()


def _read_dataset(dataset: Any) -> _Columns:
    if dataset.format["type"] == "custom":
        raise InputTypeError(
            "got a datasets.Dataset with a transform; expected rows: use map in place of with_transform, or pass "
            "list(dataset)"
        )
    plain = dataset.with_format(None)  # not tensors, arrays or frames
    return list(plain.column_names), lambda name: list(plain[name])


def _read_cursor(cursor: Any) -> _Columns:
    described = getattr(cursor, "description", None)
    names = [str(column[0]) for column in described] if described else list(getattr(cursor, "columns", None) or ())
    if not names:
        raise InputTypeError(f"got a {_type_name(cursor)} without a result; expected one: execute a query first")
    rows = [row_as_mapping(row) for row in cursor.fetchall()]
    for row in rows:
        if not isinstance(row, (Mapping, tuple, list)) or len(row) != len(names):
            raise InputTypeError(f"got a {type(row).__name__} as a row of a cursor; expected the values of {names}")
    places = {name: place for place, name in enumerate(names)}
    return names, lambda name: [row[name if isinstance(row, Mapping) else places[name]] for row in rows]


def _has_columns(data: Any) -> bool:
    """Return True for an object with columns that is not a mapping of columns or an iterable of rows."""
    if isinstance(data, (str, bytes, Mapping, list, tuple, set, Iterator)):
        return False
    names = getattr(type(data), "columns", vars(data).get("columns") if hasattr(data, "__dict__") else None)
    return names is not None and not callable(names) and type(data).__module__.partition(".")[0] != "datasets"


def _is_map_style(data: Any) -> bool:
    """Return True for an object that is indexed and sized, and not iterated, as data sets of torch are."""
    kind = type(data)
    return hasattr(kind, "__getitem__") and hasattr(kind, "__len__") and not hasattr(kind, "__iter__")


def _gives_batches(data: Any) -> bool:
    """Return True for a loader of torch or of ours, or of a subclass, unless it gives rows (`batch_size=None`)."""
    loader = any((kind.__module__, kind.__name__) in _LOADERS for kind in type(data).__mro__)
    return loader and getattr(data, "batch_sampler", data) is not None


def _conversion(data: Any) -> str:
    method = next((call for name, call in _CONVERSIONS.items() if callable(getattr(data, name, None))), None)
    return f"pass the result of its {method}" if method else "pass a dict of its columns"


def _type_name(data: Any) -> str:
    return f"{type(data).__module__.partition('.')[0]}.{type(data).__name__}"
