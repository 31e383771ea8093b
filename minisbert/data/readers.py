"""Read data files as columns: .tsv, .csv, .jsonl and .json, each also as .gz, and .parquet if pyarrow is installed."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from ..errors import InputError, shown
from ..storage.files import is_file, open_file
from .sources import without_index

Columns: TypeAlias = dict[str, list[Any]]
_Reader: TypeAlias = Callable[[Path], tuple[Columns, Sequence[int] | None] | tuple[Columns, Sequence[int] | None, str]]
_LARGEST_UNPACKED = 50_000_000  # bytes that any compressed file may unpack to
_LARGEST_RATIO = 100  # texts are compressed to a tenth, and rows that repeat each other to less
_FORMATS = ".tsv, .csv, .jsonl, .json (each also with .gz) or .parquet"


def read_columns(path: Path) -> tuple[Columns, Sequence[int] | None, str]:
    """Read a data file: its columns by name, the line of each row (None: the format has no lines), and its name.

    The name says how it was read where that could have been done in two ways.

    Raises:
        InputError: the file is missing, of an unknown format, or broken; the message names file and line.
    """
    reader = _reader(path)
    if reader is None:
        raise InputError(f"got the data file {path}; expected an ending of {_FORMATS}: convert or rename it")
    if not is_file(path):
        raise InputError(f"there is no file {path}; expected a data file: check its name")
    columns, lines, *note = reader(path)
    return columns, lines, f"{path}{''.join(note)}"


def is_separated(path: Path) -> bool:
    """Return True if the name of a file says that its values are texts between commas or tabs, numbers too."""
    return _reader(path) in (_read_tsv, _read_csv)


def has_columns(path: Path) -> bool:
    """Return True if the name of a file says that it has columns."""
    return _reader(path) is not None


def read_lines(path: Path) -> list[str]:
    """Read the lines of a UTF-8 text file, plain or gzipped, without line ends.

    Raises:
        InputError: the file is missing, not UTF-8, or not gzip though its name says so.
    """
    return _lines(_text(path))


def lines_of(content: bytes, *, source: str) -> list[str]:
    """Split UTF-8 text that was read from `source` into lines, without line ends.

    Raises:
        InputError: it is not UTF-8.
    """
    return _lines(_decoded(content, source))


def _lines(text: str) -> list[str]:
    lines = text.removesuffix("\r").replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines


def _text(path: Path) -> str:
    try:
        with open_file(path) as file:
            content = _unpacked(file) if path.suffix.lower() == ".gz" else file.read()
    except FileNotFoundError:
        raise InputError(f"there is no file {path}; expected a data file: check its name") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}); expected a complete file: copy it again") from None
    return _decoded(content, str(path))


def _check_unpacked(path: Path, unpacked: int) -> None:
    size = path.stat().st_size
    if unpacked > max(_LARGEST_UNPACKED, size * _LARGEST_RATIO):
        raise InputError(f"{path}: its {size:,} bytes unpack to {unpacked:,}; expected at most {_LARGEST_RATIO} times")


def _unpacked(file: BinaryIO) -> bytes:
    size = os.fstat(file.fileno()).st_size
    largest = max(_LARGEST_UNPACKED, size * _LARGEST_RATIO)
    with gzip.GzipFile(fileobj=file) as unpacked:
        content = unpacked.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"its {size:,} bytes unpack to more than {largest:,}")
    return content


def _decoded(content: bytes, source: str) -> str:
    got, offset = "a zero byte", content.find(b"\0")  # often UTF-16, of which half are zeros
    if offset < 0:
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            got, offset = "bytes that are not UTF-8", error.start
    line = content.count(b"\n", 0, offset) + 1
    raise _error(source, line, f"got {got}; expected a text in UTF-8: convert the file")


def _error(source: str | Path, line: int, problem: str) -> InputError:
    return InputError(f"{source}, line {line}: {problem}")


def _read_tsv(path: Path) -> tuple[Columns, Sequence[int] | None] | tuple[Columns, Sequence[int] | None, str]:
    content = _text(path)
    if _quotes_fields(content):
        return *_read_separated(path, content, delimiter="\t"), " (quoted fields)"
    texts = _lines(content)
    skip_empty = bool(texts) and "\t" in texts[0]  # in a file of one column an empty line is an empty text
    lines = [number for number, text in enumerate(texts, start=1) if text or not skip_empty]
    return _with_header(path, (texts[number - 1].split("\t") for number in lines), lines)


def _quotes_fields(content: str) -> bool:
    """Return True if tab-separated text is what a CSV writer makes, with quotes around fields that need them.

    Data sets are often written without any quoting, and their texts have quotes of their own. So fields count as quoted
    only if writing them again, in one of the writers' ways, gives the same text.
    """
    if '"' not in content:
        return False
    limit = csv.field_size_limit(sys.maxsize)
    try:
        rows = list(csv.reader(io.StringIO(content, newline=""), delimiter="\t", strict=True))
    except csv.Error:
        return False
    finally:
        csv.field_size_limit(limit)
    for end in ("\n", "\r\n"):
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
            again = io.StringIO(newline="")
            csv.writer(again, delimiter="\t", lineterminator=end, quoting=quoting).writerows(rows)
            if again.getvalue().removesuffix(end) == content.removesuffix(end):
                return True
    return False


def _read_csv(path: Path) -> tuple[Columns, Sequence[int] | None]:
    return _read_separated(path, _text(path), delimiter=",")


def _read_separated(path: Path, content: str, *, delimiter: str) -> tuple[Columns, Sequence[int]]:
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    rows, lines = [], []
    limit = csv.field_size_limit(sys.maxsize)
    try:
        for row in reader:
            if row:
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise _error(path, reader.line_num, f"{error}; expected comma-separated values: fix the quotes") from None
    finally:
        csv.field_size_limit(limit)
    return _with_header(path, rows, lines)


def _with_header(path: Path, rows: Iterable[list[str]], lines: Sequence[int]) -> tuple[Columns, Sequence[int]]:
    remaining = iter(rows)
    header = next(remaining, [])
    if not header or len(set(header)) != len(header):
        raise _error(path, 1, f"got the column names {shown(header)}; expected a different name for each: rename them")
    columns: list[list[str]] = [[] for _ in header]
    for line, row in zip(lines[1:], remaining, strict=True):
        if len(row) != len(header):
            raise _error(path, line, f"got {len(row)} field(s); expected {len(header)}, as in line 1: fix the line")
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    return dict(zip(header, columns, strict=True)), lines[1:]


def _read_jsonl(path: Path) -> tuple[Columns, Sequence[int] | None]:
    columns: Columns = {}
    lines = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _error(path, number, f"{error}; expected one JSON object: fix the line") from None
        if not isinstance(row, dict):
            raise _error(path, number, f"got a JSON {type(row).__name__}; expected an object: fix the line")
        columns = columns or {name: [] for name in row}
        if row.keys() != columns.keys():
            got, expected = shown(list(row)), shown(list(columns))
            raise _error(path, number, f"got the keys {got}; expected {expected}: fix the line")
        for name, value in row.items():
            columns[name].append(value)
        lines.append(number)
    return columns, lines


def _read_json(path: Path) -> tuple[Columns, Sequence[int] | None]:
    """Read a list of objects, an object of columns (lists, or objects by row as pandas writes them), or JSON lines."""
    text = _text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{"):
            return _read_jsonl(path)
        raise InputError(f"{path}: {error}; expected JSON: a list of objects, one for each row") from None
    columns = list(content.values()) if isinstance(content, dict) else []
    if columns and isinstance(columns[0], dict):  # by the index of a frame
        if any(not isinstance(values, dict) or values.keys() != columns[0].keys() for values in columns):
            raise InputError(f"{path}: expected the same keys in each column: write it with orient='records'")
        if not all(key.isdecimal() for key in columns[0]):
            raise InputError(f"{path} holds rows by name; expected a list of objects: write it with orient='records'")
        content = {name: [values[key] for key in columns[0]] for name, values in content.items()}
    if isinstance(content, dict) and content and all(isinstance(values, list) for values in content.values()):
        lists: Columns = content
        if len({len(values) for values in lists.values()}) == 1:
            return lists, None
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise InputError(f"{path} holds something other than rows; expected a list of objects, one for each row")
    for number, row in enumerate(content):
        if row.keys() != content[0].keys():
            got, expected = shown(list(row)), shown(list(content[0]))
            raise InputError(f"{path}, row {number}: got the keys {got}; expected {expected}: fix the row")
    return {name: [row[name] for row in content] for name in (content[0] if content else ())}, None


def _read_parquet(path: Path) -> tuple[Columns, Sequence[int] | None]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise InputError(f"got {path}; reading parquet needs pyarrow: pip install pyarrow, or use .jsonl") from None
    try:
        with parquet.ParquetFile(path) as file:
            sizes = [file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups)]
            _check_unpacked(path, sum(sizes))
            columns: Columns = file.read(without_index(file.schema_arrow.names)).to_pydict()
    except (ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); expected a parquet file: write it again") from None
    return columns, None


_TEXT_READERS: dict[str, _Reader] = {".tsv": _read_tsv, ".csv": _read_csv, ".jsonl": _read_jsonl, ".json": _read_json}
_READERS = {ending + gz: read for ending, read in _TEXT_READERS.items() for gz in ("", ".gz")}
_READERS[".parquet"] = _read_parquet


def _reader(path: Path) -> _Reader | None:
    name = path.name.lower()
    return next((read for ending, read in _READERS.items() if name.endswith(ending)), None)
