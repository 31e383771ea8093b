"""Read data files as columns: .tsv, .csv, .jsonl and .json, each also as .gz, and .parquet if pyarrow is installed."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from ..errors import InputError, line_error, shown
from ..storage.files import is_file, open_file
from .sources import check_names, without_index

Columns: TypeAlias = dict[str, list[Any]]
Numbered: TypeAlias = Iterator[tuple[list[str], int]]  # fields of rows, and their lines


class Content(NamedTuple):
    """The content of a data file.

    Attributes:
        columns: by name.
        lines: the line of each row, or None if the format has no lines.
        source: the file, and how it was read where that could have been done in two ways.
        typed: numbers are numbers, not texts that spell them.
    """

    columns: Columns
    lines: Sequence[int] | None
    source: str
    typed: bool = True


_Reader: TypeAlias = Callable[[Path], Content]
_LARGEST_UNPACKED = 50_000_000  # bytes that any compressed file may unpack to
_LARGEST_RATIO = 100  # texts are compressed to a tenth, and rows that repeat each other to less
_FORMATS = ".tsv, .csv, .jsonl, .json (each also with .gz) or .parquet"


def read_columns(path: Path) -> Content:
    """Read a data file.

    Raises:
        InputError: the file is missing, of an unknown format, or broken; the message names file and line.
    """
    reader = _reader(path)
    if reader is None:
        raise InputError(f"got the data file {path}; expected an ending of {_FORMATS}: convert or rename it")
    if not is_file(path):
        raise unreadable(path, FileNotFoundError())
    return reader(path)


def has_columns(path: Path) -> bool:
    """Return True if the name of a file says that it has columns."""
    return _reader(path) is not None


def read_objects(path: Path, names: Sequence[str]) -> Content:
    """Read JSON lines, plain or gzipped, whose objects may have different keys; a missing value is None.

    Columns are the keys of the first object, and those of `names` that any has.

    Raises:
        InputError: the file is missing or broken; the message names the line.
    """
    return _json_lines(path, _text(path), fill=names)


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


def unreadable(path: Path, error: Exception) -> InputError:
    """Return the error to raise if a data file cannot be read."""
    if os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises for names that no file can have
        return InputError(f"{path} is a folder; expected a data file: pass the files in it")
    if isinstance(error, FileNotFoundError):
        return InputError(f"there is no file {path}; expected a data file: check its name")
    return InputError(f"{path} cannot be read ({error}); expected a complete file: copy it again")


def _text(path: Path) -> str:
    try:
        with open_file(path) as file:
            content = _unpacked(file) if path.suffix.lower() == ".gz" else file.read()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise unreadable(path, error) from None
    return _decoded(content, str(path))


def largest_unpacked(size: int) -> int:
    """Bytes that a compressed file of `size` bytes may unpack to."""
    return max(_LARGEST_UNPACKED, size * _LARGEST_RATIO)


def _unpacked(file: BinaryIO) -> bytes:
    size = os.fstat(file.fileno()).st_size
    largest = largest_unpacked(size)
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
    raise line_error(source, line, f"got {got}; expected a text in UTF-8: convert the file")


def _read_tsv(path: Path) -> Content:
    content = _text(path)
    if '"' in content and is_quoted(io.StringIO(content, newline="")):
        rows = quoted_rows(path, io.StringIO(content, newline=""), "\t")
        return _with_header(path, rows, note=" (quoted fields)")
    return _with_header(path, plain_rows(_lines(content if "\n" in content else content.replace("\r", "\n"))))


def _read_csv(path: Path) -> Content:
    return _with_header(path, quoted_rows(path, io.StringIO(_text(path), newline=""), ","))


def plain_rows(lines: Iterable[str]) -> Numbered:
    """Yield the fields between tabs of lines without ends, and their numbers; of one column no line is left out."""
    skip_empty = False
    for number, text in enumerate(lines, start=1):
        skip_empty = skip_empty or (number == 1 and "\t" in text)
        if text or not skip_empty:
            yield text.split("\t"), number


def quoted_rows(path: Path, lines: Iterable[str], delimiter: str) -> Numbered:
    """Yield rows of fields that may be quoted, and the line in which each ends. Empty lines are empty rows.

    Raises:
        InputError: the quotes are broken; the message names the line.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        for row in reader:
            yield row, reader.line_num
    except csv.Error as error:
        raise line_error(path, reader.line_num, f"{error}; expected comma-separated values: fix the quotes") from None


@contextmanager
def long_fields() -> Iterator[None]:
    """Let csv read fields of any length for a block of code."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def is_quoted(lines: Iterable[str]) -> bool:
    """Return True if a CSV writer put quotes around the fields of tab-separated lines that need them.

    Data sets are often written without any quoting, and their texts have quotes of their own. So fields count as quoted
    only if writing the rows again, in one of the writers' ways, gives the same text; its last line may lack the end.
    """
    given: list[str] = []

    def kept() -> Iterator[str]:
        for line in lines:
            given.append(line)
            yield line

    ways = [(end, how) for end in ("\n", "\r\n") for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)]
    try:
        with long_fields():
            for row in csv.reader(kept(), delimiter="\t", strict=True):
                text = "".join(given)
                given.clear()
                ways = [way for way in ways if text in (whole := _written(row, *way), whole.removesuffix(way[0]))]
                if not ways:
                    return False
    except csv.Error:
        return False
    return True


def _written(row: list[str], end: str, quoting: Any) -> str:
    line = io.StringIO(newline="")
    csv.writer(line, delimiter="\t", lineterminator=end, quoting=quoting).writerow(row)
    return line.getvalue()


def _with_header(path: Path, numbered: Numbered, *, note: str = "") -> Content:
    """Take the names of the columns from the first row; rows without fields are left out."""
    with long_fields():
        remaining = iter([(row, line) for row, line in numbered if row])
    header = check_header(path, next(remaining, ([], 0))[0])
    return Content(*by_column(path, header, remaining), f"{path}{note}", typed=False)


def check_header(path: Path, header: list[str]) -> list[str]:
    """Return the fields of the first line of a file if they are names of columns.

    Raises:
        InputError: they are not.
    """
    if not header:
        raise line_error(path, 1, "got no names of columns; expected them in the first line: add them and rows")
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        separated = "expected commas between columns in a .csv file and tabs in a .tsv file: write it so, or rename it"
        raise line_error(path, 1, f"got the one column {shown(header[0])}; {separated}")
    if len(set(header)) != len(header):
        raise line_error(
            path, 1, f"got the column names {shown(header)}; expected a different name for each: rename them"
        )
    return header


def by_column(
    path: Path, header: Sequence[str], rows: Iterable[tuple[list[str], int]]
) -> tuple[dict[str, list[Any]], list[int]]:
    """Return rows of texts as columns, and the line of each.

    Raises:
        InputError: a row has more or fewer fields than the header.
    """
    columns: list[list[Any]] = [[] for _ in header]
    kept = []
    for row, line in rows:
        if len(row) != len(header):
            raise line_error(path, line, f"got {len(row)} field(s); expected {len(header)}, as in line 1: fix the line")
        for column, value in zip(columns, row, strict=True):
            column.append(value)
        kept.append(line)
    return dict(zip(header, columns, strict=True)), kept


def _read_jsonl(path: Path) -> Content:
    return _json_lines(path, _text(path))


def _json_lines(path: Path, text: str, *, fill: Sequence[str] = ()) -> Content:
    from .objects import from_objects, json_objects  # no module is loaded before it is needed

    return Content(*from_objects(path, json_objects(path, text, 1), fill=fill), str(path))


def _read_json(path: Path) -> Content:
    """Read a list of objects, an object of columns (lists, or objects by row as pandas writes them), or JSON lines."""
    from .objects import from_objects

    text = _text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{"):
            return _json_lines(path, text)
        raise InputError(f"{path}: {error}; expected JSON: a list of objects, one for each row") from None
    if isinstance(content, dict) and isinstance(next(iter(content.values()), None), dict):
        content = _by_index(path, content)
    if isinstance(content, dict) and content and all(isinstance(values, list) for values in content.values()):
        if len(set(map(len, content.values()))) == 1:
            return Content(content, None, str(path))
    elif isinstance(content, list) and all(isinstance(row, dict) for row in content):
        return Content(from_objects(path, enumerate(content), noun="row")[0], None, str(path))
    raise InputError(f"{path} holds something other than rows; expected a list of objects, one for each row")


def _by_index(path: Path, columns: dict[str, Any]) -> Columns:
    """Return columns whose values go by the index of a frame as lists."""
    keys = next(iter(columns.values())).keys()
    if any(not isinstance(values, dict) or values.keys() != keys for values in columns.values()):
        raise InputError(f"{path}: expected the same keys in each column: write it with orient='records'")
    if not all(key.isdecimal() for key in keys):
        raise InputError(f"{path} holds rows by name; expected a list of objects: write it with orient='records'")
    return {name: [values[key] for key in keys] for name, values in columns.items()}


def _read_parquet(path: Path) -> Content:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise InputError(f"got {path}; reading parquet needs pyarrow: pip install pyarrow, or use .jsonl") from None
    try:
        with parquet.ParquetFile(path) as file:
            check_names(file.schema_arrow.names, source=f"{path}: ")
            names, groups = without_index(file.schema_arrow.names), range(file.metadata.num_row_groups)
            leaves = list(map(file.schema.column, range(file.metadata.num_columns)))
            parts = [
                (leaf, file.metadata.row_group(group).column(n)) for group in groups for n, leaf in enumerate(leaves)
            ]
            sizes = (part.total_uncompressed_size + part.num_values * max(8, leaf.length) for leaf, part in parts)
            check_unpacked(path, sum(sizes))
            # First with texts as entries of a dictionary, which holds one that all rows share only once.
            texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
            with parquet.ParquetFile(path, read_dictionary=texts) as encoded:
                read = (column for group in groups for column in encoded.read_row_group(group, names).columns)
                check_unpacked(path, sum(unpacked_size(array) for column in read for array in column.chunks))
            columns: Columns = file.read(names).to_pydict()
    except InputError:
        raise
    except (ArrowException, OSError, ValueError) as error:  # the last for fields of one name in a struct
        raise InputError(f"{path} cannot be read ({error}); expected a parquet file: write it again") from None
    return Content(columns, None, str(path))


def check_unpacked(path: Path, unpacked: int) -> None:
    """Raise InputError if a compressed file unpacks to more than any file of texts does."""
    if unpacked > largest_unpacked(size := path.stat().st_size):
        raise InputError(f"{path}: its {size:,} bytes unpack to {unpacked:,}; expected at most {_LARGEST_RATIO} times")


def unpacked_size(array: Any) -> int:
    """Bytes of an Arrow array with each text of its dictionaries written out."""
    from pyarrow import compute, types

    if types.is_dictionary(array.type):
        return compute.sum(compute.binary_length(array.dictionary).take(array.indices)).as_py() or 0
    if types.is_nested(array.type):
        return sum(map(unpacked_size, array.flatten() if types.is_struct(array.type) else [array.values]))
    return int(array.nbytes)


_TEXT_READERS: dict[str, _Reader] = {".tsv": _read_tsv, ".csv": _read_csv, ".jsonl": _read_jsonl, ".json": _read_json}
_READERS = {ending + gz: read for ending, read in _TEXT_READERS.items() for gz in ("", ".gz")}
_READERS[".parquet"] = _read_parquet


def _reader(path: Path) -> _Reader | None:
    name = path.name.lower()
    return next((read for ending, read in _READERS.items() if name.endswith(ending)), None)
