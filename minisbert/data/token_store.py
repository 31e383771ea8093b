"""Rows of token ids in memory-mapped files: written block by block, opened in no time, larger than memory.

A store is a folder. `header.json`, written last, describes it, with the size and SHA-256 of each other file and the
SHA-256 of itself:

- `ids.bin`: the token ids of all texts, row by row, uint16 where the vocabulary fits, else int32;
- `offsets.bin`: the start of each text in it, and the end of the last, int64;
- `hashes.bin`: a number for each text, equal for equal texts, uint64;
- `labels.bin`: float32, one or several for each row, if they have some; `classes.bin` in its place if they are names;
- `types.bin`: the types of the tokens, uint8, if the tokenizer gives some.

All are little-endian. `progress.json` holds what has been written, until the store is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, ModelError
from ..storage.files import is_file, read_json_object, replace_text, size_and_digest, write_error
from ..text import TokenizedTexts

HEADER, _PROGRESS, _VERSION = "header.json", "progress.json", 1
_REMEDY = "expected a token store: copy it again, or remove the folder to tokenize again"
_LARGEST_SHORT = 2**16  # tokens of a vocabulary whose ids are uint16
_TYPES = {"ids": "<u2", "offsets": "<i8", "hashes": "<u8", "labels": "<f4", "types": "u1"}


@dataclass(frozen=True)
class StoredTexts(TokenizedTexts):
    """Token ids of the texts of a store, of which nothing is in memory until it is used; `lengths` is empty.

    Attributes:
        starts: the start of each text in `ids`, and the end of the last: int64, (texts + 1,).
        digest: of the files, in hexadecimal.
    """

    starts: NDArray[np.int64] = field(kw_only=True)
    digest: str = field(kw_only=True)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """The start of each text in `ids`, and the end of the last: (texts + 1,)."""
        return self.starts

    def lengths_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the lengths of some texts: (rows,)."""
        return self.starts[rows + 1] - self.starts[rows]


@dataclass(frozen=True)
class TokenStore:
    """A complete store.

    Attributes:
        folder: where it is.
        header: what `StoreWriter.finish` was given, with "rows", "tokens" and "truncated".
        texts: the texts, row by row.
        hashes: (rows, columns), uint64.
        labels: float32, (rows,) or (rows, size) or (rows, columns, size); or None.
    """

    folder: Path
    header: Mapping[str, Any]
    texts: StoredTexts
    hashes: NDArray[np.uint64]
    labels: NDArray[np.float32] | None

    def __len__(self) -> int:
        return int(self.header["rows"])

    @classmethod
    def open(cls, folder: Path) -> TokenStore:
        """Open a store, after checking that its files are as they were written.

        Raises:
            InputError: one is missing or damaged, or there is no store.
        """
        header = read_header(folder)
        with _telling(folder):
            for name, saved in header["files"].items():
                if size_and_digest(folder / name) != saved:
                    raise InputError(f"{folder / name} is damaged: it is not what was saved; {_REMEDY}")
            return cls._of(folder, header)

    @classmethod
    def _of(cls, folder: Path, header: Mapping[str, Any]) -> TokenStore:
        """Map the files that a header describes, unchecked."""
        rows, columns, shape = header["rows"], len(header["columns"]), header["label_shape"]
        arrays = {name: _mapped(folder / f"{name}.bin", header["types"][name]) for name in header["types"]}
        texts = StoredTexts(
            ids=arrays["ids"],
            lengths=np.empty(0, np.int64),
            truncated=header["truncated"],
            types=arrays.get("types"),
            starts=arrays["offsets"],
            digest=json.dumps(header["files"], sort_keys=True),
        )
        labels = arrays.get("labels", arrays.get("classes"))
        labels = None if labels is None else labels.reshape(rows, *shape)
        return cls(folder, header, texts, arrays["hashes"].reshape(rows, columns), labels)


def read_header(folder: Path) -> dict[str, Any]:
    """Read the header of a store, which describes it, without reading its rows.

    Raises:
        InputError: it is missing, damaged or of another version.
    """
    with _telling(folder):
        header: dict[str, Any] = read_json_object(folder / HEADER)
        if header.pop("digest", None) != _digest(header):
            raise ValueError("it is not what was saved")
        if header["version"] != _VERSION:
            raise InputError(f"{folder} is a token store of version {header['version']}; {_REMEDY}")
        return header


@contextmanager
def _telling(folder: Path) -> Iterator[None]:
    """Say of any error in a block of code which file of a store is missing or damaged, as InputError."""
    try:
        yield
    except InputError:
        raise
    except ModelError as error:
        raise InputError(f"{str(error).partition(';')[0]}; {_REMEDY}") from None
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        damaged = getattr(error, "filename", None) or folder / HEADER
        raise InputError(f"{damaged} is missing or damaged; {_REMEDY}") from None


def check_sizes(folder: Path, header: Mapping[str, Any]) -> None:
    """Check that the files of a store are there and as long as its header says, without reading them.

    Raises:
        InputError: one is missing, or has another size.
    """
    for name, saved in header["files"].items():
        path = folder / name
        if not is_file(path) or path.stat().st_size != saved["bytes"]:
            raise InputError(f"{path} is missing or damaged; {_REMEDY}")


def _digest(header: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def is_store(path: Any) -> bool:
    """Return True if a path is that of a complete store."""
    return isinstance(path, (str, Path)) and "\0" not in str(path) and is_file(Path(path) / HEADER)


def _mapped(path: Path, kind: str) -> NDArray[Any]:
    # Copy-on-write, so that torch takes the array without a warning; nothing ever writes to it.
    return np.asarray(np.memmap(path, kind, "c")) if path.stat().st_size else np.empty(0, kind)


@dataclass
class Progress:
    """Counts of what has been written of a store.

    Attributes:
        blocks: of the source.
        rows: of the store.
        tokens: in all texts.
        truncated: texts that were cut.
        empty: texts that are empty or blank.
        label_shape: of the label of one row.
        classes: names of classes, in the order of their first rows.
        sizes: bytes of each file.
    """

    blocks: int = 0
    rows: int = 0
    tokens: int = 0
    truncated: int = 0
    empty: int = 0
    label_shape: Sequence[int] = ()
    classes: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)


class StoreWriter:
    """Write a store block by block, from where an earlier writer of the same folder got to.

    Args:
        folder: of the store; nobody else may write there.
        columns: names of the columns of texts.
        vocabulary: number of tokens, which decides the type of the ids.

    Attributes:
        progress: what has been written.

    Raises:
        InputError: the folder cannot be written, in any method.
    """

    def __init__(self, folder: Path, *, columns: Sequence[str], vocabulary: int) -> None:
        self._folder, self._columns = folder, list(columns)
        self._types = {**_TYPES, "ids": "<u2" if vocabulary <= _LARGEST_SHORT else "<i4"}
        self._files: dict[str, BinaryIO] = {}
        self.progress = Progress()

    def __enter__(self) -> StoreWriter:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self.progress = self._earlier()
            for name in self._types:
                path = self._folder / f"{name}.bin"
                path.touch()
                self._files[name] = file = path.open("r+b")
                file.truncate(self.progress.sizes.get(name, 0))
                file.seek(0, os.SEEK_END)
            if not self.progress.rows:
                self._write("offsets", np.zeros(1, np.int64))
        except OSError as error:
            self._close()
            raise write_error(self._folder, error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._close()

    def add(
        self,
        tokens: TokenizedTexts,
        hashes: NDArray[np.uint64],
        labels: NDArray[np.float32] | None = None,
        *,
        empty: int = 0,
        classes: Sequence[str] = (),
    ) -> None:
        """Append rows; after a kill the next writer goes on behind them.

        Args:
            tokens: the texts, row by row: those of all columns of a row follow each other.
            hashes: of each text, (rows, columns).
            labels: of each row, or None.
            empty: number of texts that are empty.
            classes: names of all classes so far; labels are their numbers.
        """
        done = self.progress
        values: dict[str, NDArray[Any]] = {
            "ids": tokens.ids,
            "offsets": done.tokens + np.cumsum(tokens.lengths),
            "hashes": hashes,
            **({} if labels is None else {"labels": labels}),
            **({} if tokens.types is None else {"types": tokens.types}),
        }
        try:
            for name, array in values.items():
                self._write(name, array)
            for name in values:
                self._files[name].flush()
                os.fsync(self._files[name].fileno())
        except OSError as error:
            raise write_error(self._folder, error) from error
        self.progress = Progress(
            blocks=done.blocks + 1,
            rows=done.rows + len(hashes),
            tokens=done.tokens + int(tokens.lengths.sum()),
            truncated=done.truncated + tokens.truncated,
            empty=done.empty + empty,
            label_shape=() if labels is None else labels.shape[1:],
            classes=list(classes),
            sizes={name: self._files[name].tell() for name in self._types},
        )
        replace_text(self._folder / _PROGRESS, json.dumps(asdict(self.progress)))

    def finish(self, header: Mapping[str, Any]) -> TokenStore:
        """Complete the store; classes are numbered in the order of their sorted names from now on.

        Args:
            header: what else to keep, as JSON; see `stored_rows.py`.
        """
        progress, types = self.progress, dict(self._types)
        for name in [name for name in types if not progress.sizes.get(name)]:
            del types[name]
        self._close()
        try:
            if progress.classes:
                del types["labels"]
                types["classes"] = self._types["labels"]
                self._sort_classes()
            files = {f"{name}.bin": size_and_digest(self._folder / f"{name}.bin") for name in types}
        except OSError as error:
            raise write_error(self._folder, error) from error
        counted = {name: getattr(progress, name) for name in ("rows", "tokens", "truncated", "label_shape")}
        described = {"version": _VERSION, "columns": self._columns, **counted, "classes": sorted(progress.classes)}
        content = {**header, **described, "types": types, "files": files}
        written = json.dumps(content, ensure_ascii=False)
        replace_text(
            self._folder / HEADER, json.dumps({**content, "digest": _digest(json.loads(written))}, ensure_ascii=False)
        )
        for name in {*self._types} - {*types}:
            (self._folder / f"{name}.bin").unlink(missing_ok=True)
        (self._folder / _PROGRESS).unlink(missing_ok=True)
        return TokenStore._of(self._folder, json.loads(written))  # as it will be read, but not checked once more

    def _sort_classes(self) -> None:
        """Write labels with the numbers of sorted names; the others stay until there is a header, should this end."""
        sorted_names = {name: number for number, name in enumerate(sorted(self.progress.classes))}
        numbers = np.array([sorted_names[name] for name in self.progress.classes], np.float32)
        with (self._folder / "labels.bin").open("rb") as file, (self._folder / "classes.bin").open("wb") as new:
            while block := file.read(1 << 22):
                new.write(numbers[np.frombuffer(block, "<f4").astype(np.int64)].astype("<f4").tobytes())
            new.flush()
            os.fsync(new.fileno())

    def _earlier(self) -> Progress:
        """Read how far an earlier writer got; a file that is shorter than it says means that nothing counts."""
        try:
            found = Progress(**json.loads((self._folder / _PROGRESS).read_text(encoding="utf-8")))
            whole = all((self._folder / f"{name}.bin").stat().st_size >= size for name, size in found.sizes.items())
            return found if whole else Progress()
        except (OSError, ValueError, TypeError, AttributeError):
            return Progress()

    def _write(self, name: str, values: NDArray[Any]) -> None:
        self._files[name].write(np.ascontiguousarray(values, dtype=self._types[name]).data)

    def _close(self) -> None:
        with ExitStack() as stack:
            for file in self._files.values():
                stack.callback(file.close)
        self._files = {}
