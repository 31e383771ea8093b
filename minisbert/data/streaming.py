"""Read data files of any size block by block."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..errors import InputError, line_error
from ..storage.files import open_file
from .objects import from_objects, json_objects
from .readers import (
    Numbered,
    by_column,
    check_header,
    check_unpacked,
    has_columns,
    is_quoted,
    long_fields,
    plain_rows,
    quoted_rows,
    unpacked_size,
    unreadable,
)
from .rows import Table, as_table
from .sources import check_names, without_index

_LONGEST_LINE = 100_000_000  # bytes
_CHUNK = 1 << 20  # bytes


class Block(NamedTuple):
    """Rows of a file, and the share of it that has been read with them."""

    table: Table
    done: float


def read_blocks(
    path: Path, rows: int, *, columns: Sequence[str] = (), first: int = 0, last: int | None = None
) -> Iterator[Block]:
    """Read a .tsv, .csv or .jsonl file, each also as .gz, or a .parquet file in blocks; any other one as a whole.

    The rows are those that `as_table` reads.

    Args:
        path: the file.
        rows: of a block; the last one may have fewer.
        columns: of a .parquet file, to read only these if it has them.
        first: number of the first row to read.
        last: number of the row to stop before; None for all.

    Raises:
        InputError: the file is missing, of an unknown format, or broken; the message names file and line.
    """
    kind = _kind(path)
    if not path.is_file() or not has_columns(path) or kind == ".json":
        yield from _slices(as_table(path), rows, first, last)
    elif kind == ".parquet":
        yield from _parquet(path, rows, columns, first, last)
    elif kind == ".jsonl":
        yield from _json_lines(path, rows, first, last)
    else:
        yield from _separated(path, rows, first, last)


def read_line_blocks(
    path: Path, rows: int, *, first: int = 0, last: int | None = None, file: BinaryIO | None = None
) -> Iterator[Block]:
    """Read the lines of a text file, plain or gzipped, in blocks as the column "text"; else as `read_blocks`.

    With `file`, which is open, `path` is only its name for messages.
    """
    lines = _Lines(path, file=file)
    numbered = islice(enumerate(lines.without_ends(), start=1), first, last)
    while part := list(islice(numbered, rows)):
        numbers, texts = map(list, zip(*part, strict=True))
        yield Block(Table({"text": texts}, str(path), numbers), lines.done)


def count_rows(path: Path, *, lines: bool = False) -> int:
    """Count the rows of a file that `read_blocks` reads, or its lines, in constant memory, without making the rows."""
    if lines:
        return sum(text.removesuffix("\n").count("\n") + 1 for _, text in _Lines(path).texts())
    if not path.is_file() or not has_columns(path) or _kind(path) == ".json":
        return len(as_table(path))
    if _kind(path) == ".parquet":
        with _parquet_file(path) as file:
            return int(file.metadata.num_rows)
    if _kind(path) == ".jsonl":
        return sum(_filled(text) for _, text in _Lines(path).texts())
    fields, _, _ = _fields(path)
    with long_fields():
        return sum(1 for _ in fields) - 1


def _kind(path: Path) -> str:
    kind = "".join(path.suffixes[-2:]).lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    return kind.removesuffix(".gz")


def _slices(table: Table, rows: int, first: int, last: int | None) -> Iterator[Block]:
    size = len(table) if last is None else min(last, len(table))
    for start in range(first, size, rows):
        stop = min(start + rows, size)
        columns = {name: values[start:stop] for name, values in table.columns.items()}
        lines = table.lines[start:stop] if table.lines else None
        yield Block(replace(table, columns=columns, lines=lines, first=start), stop / len(table))


class _Lines:
    """The lines of a UTF-8 file, plain or gzipped; many are read and checked together.

    Args:
        path: the file.
        carriage: lines of a file without any line feed end with carriage returns.
        file: read this one from its beginning; `path` is its name.
    """

    def __init__(self, path: Path, *, carriage: bool = False, file: BinaryIO | None = None) -> None:
        self._path, self._carriage, self._file, self.done = path, carriage, file, 0.0

    def __iter__(self) -> Iterator[str]:
        """Yield each line with its end, for csv: one that ends with a carriage return too."""
        for _, text in self.texts():
            yield from io.StringIO(text, newline="")

    def without_ends(self) -> Iterator[str]:
        """Yield each line without its end."""
        for _, text in self.texts():
            lines = text.removesuffix("\n").split("\n")
            yield from (line.removesuffix("\r") for line in lines) if "\r" in text else lines

    def texts(self) -> Iterator[tuple[int, str]]:
        """Yield the number of a line, and the text of this and of some that follow, with their ends.

        Raises:
            InputError: the file cannot be read, or a line is too long or no text; those before it are yielded first.
        """
        number, read = 1, 0
        held: list[bytes] = []  # of a line whose end has not been read
        with _opened(self._path, self._file) as (file, raw):
            size, packed = max(1, os.fstat(raw.fileno()).st_size), file is not raw
            while chunk := file.read(_CHUNK):
                read += len(chunk)
                if packed:
                    check_unpacked(self._path, read)
                self.done = raw.tell() / size
                if end := chunk.rfind(b"\n") + 1:
                    content = b"".join([*held, chunk[:end]])
                    held.clear()
                    yield from self._decoded(content, number)
                    number += content.count(b"\n")
                held.append(chunk[end:])
                if sum(map(len, held)) >= _LONGEST_LINE:
                    raise line_error(self._path, number, "got 100 MB without its end; expected lines: check the file")
        rest = b"".join(held)
        if self._carriage and number == 1:  # as from a spreadsheet of an old Macintosh
            rest = rest.replace(b"\r", b"\n")
        if rest:
            yield from self._decoded(rest, number)
        self.done = 1.0

    def _decoded(self, content: bytes, number: int) -> Iterator[tuple[int, str]]:
        """Yield lines from the line `number` on as a text, up to one that is none."""
        content = content.removeprefix(codecs.BOM_UTF8) if number == 1 else content
        invalid, zero = len(content), content.find(b"\0")
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            invalid = error.start
        bad = invalid if zero < 0 else min(invalid, zero)
        if bad == len(content):
            yield number, text
            return
        start = content.rfind(b"\n", 0, bad) + 1
        line = content[start:].split(b"\n", 1)[0]
        if start:
            yield number, content[:start].decode()
        got = "a zero byte" if b"\0" in line else "bytes that are not UTF-8"
        number += content.count(b"\n", 0, start)
        raise line_error(self._path, number, f"got {got}; expected a text in UTF-8: convert the file")


@contextmanager
def _opened(path: Path, file: BinaryIO | None = None) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open a file, and unpack it if it is gzipped: what to read, and the file itself. One that is open is rewound."""
    try:
        if file is not None:
            file.seek(0)
            yield file, file
            return
        with open_file(path) as raw:
            if path.suffix.lower() != ".gz":
                yield raw, raw
                return
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield unpacked, raw  # type: ignore[misc]  # it reads like any binary file
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from None


def _json_lines(path: Path, rows: int, first: int, last: int | None) -> Iterator[Block]:
    lines = _Lines(path)
    objects = islice(_objects(path, lines, first), None if last is None else max(0, last - first))
    names: list[str] = []
    while part := list(islice(objects, rows)):
        columns, numbers = from_objects(path, part, names=names)
        names = list(columns)
        yield Block(Table(columns, str(path), numbers), lines.done)


def _objects(path: Path, lines: _Lines, first: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of JSON lines from the row `first` on; lines before it need not be objects."""
    for number, text in lines.texts():
        if first and (rows := _filled(text)) <= first:
            first -= rows
            continue
        start = 0
        while first:
            end = text.index("\n", start) + 1
            first, number, start = first - bool(text[start:end].strip()), number + 1, end
        yield from json_objects(path, text[start:], number)


def _filled(text: str) -> int:
    """Count the lines that are not blank."""
    return sum(map(bool, map(str.strip, text.split("\n"))))


def _fields(path: Path) -> tuple[Numbered, _Lines, str]:
    """Return the rows of a .csv or .tsv file, its header first, without empty ones; and what they are read from."""
    comma = _kind(path) == ".csv"
    quoted = comma or _is_quoted(path)
    lines = _Lines(path, carriage=not quoted)
    fields = quoted_rows(path, lines, "," if comma else "\t") if quoted else plain_rows(lines.without_ends())
    source = f"{path} (quoted fields)" if quoted and not comma else str(path)
    return ((row, line) for row, line in fields if row), lines, source


def _separated(path: Path, rows: int, first: int, last: int | None) -> Iterator[Block]:
    fields, lines, source = _fields(path)
    with long_fields():
        header = check_header(path, next(fields, ([], 0))[0])
    fields = islice(fields, first, last)
    while True:
        with long_fields():
            columns, numbers = by_column(path, header, islice(fields, rows))
        if not numbers:
            return
        yield Block(Table(columns, source, numbers, typed=False), lines.done)


def _is_quoted(path: Path) -> bool:
    """Return True if the fields of a .tsv file are quoted; most have no quote at all, which is quick to see."""
    with _opened(path) as (file, _):
        if not any(b'"' in chunk for chunk in iter(lambda: file.read(_CHUNK), b"")):
            return False
    return is_quoted(_Lines(path))


def _parquet(path: Path, rows: int, chosen: Sequence[str], first: int, last: int | None) -> Iterator[Block]:
    import pyarrow

    with _parquet_file(path) as file:
        check_names(file.schema_arrow.names, source=f"{path}: ")
        names = without_index(file.schema_arrow.names)
        names = list(chosen) if chosen and set(chosen) <= set(names) else names
        leaves = map(file.schema.column, range(file.metadata.num_columns))
        # Texts as entries of a dictionary, which holds one that all rows share only once; pyarrow does not read
        # lists of such texts where a block spans two row groups.
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.path in names]
    with _parquet_file(path, read_dictionary=texts) as file:
        total = file.metadata.num_rows
        last = total if last is None else min(last, total)
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        ends = list(accumulate(sizes))
        groups = [group for group, end in enumerate(ends) if end > first and end - sizes[group] < last]
        if not groups:
            return
        start = ends[groups[0]] - sizes[groups[0]]  # of what has been read and not yielded
        held: list[Any] = []  # batches from row `start` on
        for batch in file.iter_batches(rows, row_groups=groups, columns=names):
            check_unpacked(path, sum(map(unpacked_size, batch.columns)))
            held.append(batch)
            read = start + sum(map(len, held))
            while first < last and read >= (stop := min(first + rows, last)):
                table = pyarrow.Table.from_batches(held)
                yield Block(
                    Table(table.slice(first - start, stop - first).to_pydict(), str(path), first=first), stop / total
                )
                held, start, first = table.slice(stop - start).to_batches(), stop, stop
            if read <= first:
                held, start = [], read


@contextmanager
def _parquet_file(path: Path, **options: Any) -> Iterator[Any]:
    """Open a .parquet file, and say of errors of pyarrow in the block of code that the file cannot be read."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise InputError(f"got {path}; reading parquet needs pyarrow: pip install pyarrow, or use .jsonl") from None
    try:
        with parquet.ParquetFile(path, **options) as file:
            yield file
    except InputError:
        raise
    except (ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); expected a parquet file: write it again") from None
