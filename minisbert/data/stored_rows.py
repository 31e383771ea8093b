"""Training rows in a token store, made once of a data file of any size and a tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..errors import ConfigError, InputError, InputTypeError, shown, warn
from ..prefetch import prefetch
from ..storage.files import sampled_digest, write_error
from ..text import TextTokenizer, TokenizedTexts, with_prompt
from .labels import read_labels, read_vectors
from .lists import expand_lists
from .roles import TrainingRows, column_texts, empty_rows, rows_of_table
from .rows import Table
from .streaming import Block, read_blocks
from .token_store import Progress, StoreWriter, TokenStore, is_store

BLOCK = 16_384  # rows that are read, tokenized and written together
_HEAD, _HEAD_CHARACTERS = 1_000, 1_000_000  # first rows that are kept as texts, and their length together

Prompts = Callable[[Sequence[str]], Mapping[str, str]]


@dataclass(frozen=True)
class StoredRows(TrainingRows):
    """Rows in a token store; `texts` are those of the first rows only, for people to see.

    Attributes:
        store: the token ids, and what else belongs to each row; the labels are its own.
        maker: makes a store of the same rows for another tokenizer; None if their source is unknown.
    """

    row_by_row: ClassVar[bool] = True

    store: TokenStore = field(kw_only=True, repr=False)
    maker: StoreMaker | None = field(kw_only=True, repr=False)

    def __len__(self) -> int:
        return len(self.store)

    @property
    def head(self) -> TrainingRows:
        """The first rows, in memory."""
        first = None if self.labels is None else self.labels[: len(next(iter(self.texts.values())))]
        if isinstance(first, np.ndarray) and first.ndim == 1:
            first = [float(str(label)) for label in first]  # in the digits of float32
        names = (self.texts, first, self.label_name, self.source, self.label_type, self.label_index, self.classes)
        return TrainingRows(*names)

    def text_numbers(self) -> NDArray[np.uint64]:
        """Return a number for each text, equal for equal texts: (rows, columns)."""
        return self.store.hashes

    def tokens(self, tokenizer: TextTokenizer, prompts: Mapping[str, str]) -> TokenizedTexts:
        """Return the texts of `tokenized`, row by row."""
        return self.tokenized(tokenizer, prompts).texts

    def tokenized(self, tokenizer: TextTokenizer, prompts: Mapping[str, str]) -> TokenStore:
        """Return the store of these rows for a tokenizer and the prompts of columns, which may have to be made.

        Raises:
            ConfigError: the rows were tokenized in another way, and their source is unknown.
        """
        wanted = tokenization(tokenizer, prompts)
        made = self.store.header["made_of"]
        if all(made.get(name) == value for name, value in wanted.items()):
            return self.store
        if self.maker is None:
            different = ", ".join(name for name, value in wanted.items() if made.get(name) != value)
            raise ConfigError(
                f"the token store {self.store.folder} was made with another {different}; expected what is trained "
                f"with: pass the data file and token_store, to tokenize it again"
            )
        return self.maker.store(tokenizer, prompts)


def stored_rows(
    data: Any,
    tokenizer: TextTokenizer,
    *,
    cache: str | Path | None,
    prompts: Prompts = lambda columns: {},
    columns: Sequence[str] | None = None,
    scale: tuple[float, float] | None = None,
    classes: bool = False,
    show_progress_bar: bool = False,
) -> StoredRows:
    """Open rows in a token store; make the store first if there is none of this file, tokenizer, prompts and length.

    Roles of columns are found as by `training_rows`, in the first 16,384 rows, whose form all others must have. A store
    that was left unfinished is continued, and one that another process is making is waited for.

    Args:
        data: a data file; or a store, which says itself how it was made.
        tokenizer: with the maximum length of the model.
        cache: folder of stores; each is a folder in it whose name ends with its digest.
        prompts: text columns to the prompts of some.
        columns: names of the columns to use.
        scale: the labels that stand for 0 and 1.
        classes: labels are classes, by number or by name.
        show_progress_bar: show one on a terminal while a store is made.

    Raises:
        InputError: the file cannot be read, a store is damaged, or cannot be written.
    """
    if isinstance(data, StoredRows):
        return data
    if is_store(data):
        if columns is not None or scale is not None:
            option = "columns" if columns is not None else "scale"
            raise ConfigError(f"got {option} for a token store; expected none: pass it when the store is made")
        return _rows(TokenStore.open(Path(data)), None)
    if not isinstance(data, (str, Path)):
        got = f"got {type(data).__name__} for a token store"
        raise InputTypeError(f"{got}; expected the path of a data file: write one, or leave token_store out")
    if not isinstance(cache, (str, Path)) or not str(cache) or "\0" in str(cache):
        raise ConfigError(f"got token_store={shown(cache)}; expected the path of a folder")
    maker = StoreMaker(Path(data), Path(cache), columns, scale, classes, show_progress_bar)
    return _rows(maker.store(tokenizer, prompts(list(maker.first.texts))), maker)


def _rows(store: TokenStore, maker: StoreMaker | None) -> StoredRows:
    made, header = store.header["made_of"], store.header
    texts, label = made["texts"], made["label"]
    kind, classes = label["type"], tuple(header["classes"])
    source = made["source"]
    return StoredRows(
        texts, store.labels, label["name"], source, kind, label["index"], classes, store=store, maker=maker
    )


def tokenization(tokenizer: TextTokenizer, prompts: Mapping[str, str]) -> dict[str, Any]:
    """Describe how texts become tokens, as the header of a store does."""
    return {"tokenizer": tokenizer.digest(), "maximum length": tokenizer.max_length, "prompts": dict(prompts)}


@dataclass(frozen=True)
class StoreMaker:
    """Makes token stores of a data file; see `stored_rows`."""

    path: Path
    cache: Path
    columns: Sequence[str] | None
    scale: tuple[float, float] | None
    classes: bool
    show_progress_bar: bool

    @cached_property
    def first(self) -> TrainingRows:
        """The first block of rows, whose form all others have."""
        block = next(read_blocks(self.path, BLOCK), None)
        if block is None:
            raise InputError(f"{self.path} holds no rows; expected at least one: check the source of the rows")
        return rows_of_table(block.table, self.columns, self.scale, classes=self.classes)[0]

    def store(self, tokenizer: TextTokenizer, prompts: Mapping[str, str]) -> TokenStore:
        """Open the store for a tokenizer and the prompts of columns, after making what is missing of it."""
        from filelock import FileLock  # not before it is needed

        key = {**self._source(), **tokenization(tokenizer, prompts)}
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        folder = self.cache / f"{self.path.stem}-{digest}"
        if is_store(folder):
            return TokenStore.open(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):
                return TokenStore.open(folder) if is_store(folder) else self._make(folder, tokenizer, prompts, key)
        except (OSError, NotImplementedError) as error:
            raise write_error(folder, error) from error

    def _source(self) -> dict[str, Any]:
        """Describe the file, with a digest of samples of it, and what is read of it."""
        try:
            status, content = self.path.stat(), sampled_digest(self.path)
        except OSError as error:
            raise InputError(f"{self.path} cannot be read ({error}); expected the data file: put it back") from None
        of_file = [self.path.name, status.st_size, status.st_mtime_ns, content]
        columns = None if self.columns is None else list(self.columns)
        return {"file": of_file, "block": BLOCK, "columns": columns, "scale": self.scale, "classes": self.classes}

    def _make(self, folder: Path, tokenizer: TextTokenizer, prompts: Mapping[str, str], key: Any) -> TokenStore:
        first = self.first
        vocabulary = max(tokenizer.vocabulary or 0, len(tokenizer))
        with (
            StoreWriter(folder, columns=list(first.texts), vocabulary=vocabulary) as writer,
            tqdm(
                total=self.path.stat().st_size,
                desc="Tokenizing",
                unit="B",
                unit_scale=True,
                disable=None if self.show_progress_bar else True,
            ) as bar,
        ):
            for block in prefetch(self._blocks(writer.progress), depth=2):
                self._add(writer, block.table, tokenizer, [prompts.get(name, "") for name in first.texts])
                bar.update(int(block.done * (bar.total or 0)) - bar.n)
            if self._source()["file"] != key["file"]:
                raise InputError(f"{self.path} changed while it was read; expected it to stay: run this again")
            if empty := writer.progress.empty:
                warn(
                    f"{empty:,} text(s) of {self.path} are empty: they count as texts like any other; drop these rows "
                    f"if that is not meant"
                )
            label = {"name": first.label_name, "type": first.label_type, "index": first.label_index}
            made_of = {**key, "source": first.source, "label": label, "texts": _head(first)}
            return writer.finish({"made_of": made_of})

    def _blocks(self, progress: Progress) -> Iterator[Block]:
        """Yield the blocks that have not been written, with their lists expanded as in the first."""
        first = self.first
        for block in islice(read_blocks(self.path, BLOCK), progress.blocks, None):
            table = block.table if self.columns is None else block.table.select(self.columns)
            named = [] if first.label_name is None else [first.label_name]
            table = expand_lists(table, numbers=named, chosen=self.columns is not None, like=first.texts)
            wanted = {*first.texts, *named}
            if not wanted <= table.columns.keys():
                raise table.error(0, f"got the columns {list(table.columns)}; expected {list(first.columns)} as before")
            yield block._replace(table=table)

    def _add(self, writer: StoreWriter, table: Table, tokenizer: TextTokenizer, prompts: Sequence[str]) -> None:
        texts = [column_texts(table, name) for name in self.first.texts]
        labels, classes = self._labels(table, writer.progress.classes)
        prompted = [with_prompt([*column], prompt) for column, prompt in zip(texts, prompts, strict=True)]
        by_row = list(chain.from_iterable(zip(*prompted, strict=True)))
        hashes = b"".join(
            blake2b(text.encode(), digest_size=8).digest() for row in zip(*texts, strict=True) for text in row
        )
        writer.add(
            tokenizer(by_row, first=writer.progress.rows * len(texts)),
            np.frombuffer(hashes, "<u8").reshape(-1, len(texts)),
            labels,
            empty=sum(len(empty_rows(column)) for column in texts),
            classes=classes,
        )

    def _labels(self, table: Table, classes: Sequence[str]) -> tuple[NDArray[np.float32] | None, list[str]]:
        """Return the labels of a block, of which names are numbered as they come, and all names so far."""
        first, name = self.first, self.first.label_name
        if name is None:
            return None, []
        if isinstance(first.labels, np.ndarray):
            vectors = np.asarray(read_vectors(table, name), np.float32)
            if vectors.shape[1:] != first.labels.shape[1:]:
                sizes = [" x ".join(map(str, shape[1:])) or "1" for shape in (vectors.shape, first.labels.shape)]
                raise table.error(0, f"column {name} holds {sizes[0]} numbers; expected {sizes[1]}, as before")
            return vectors, []
        if not first.classes:
            return np.array(read_labels(table, name, self.scale), np.float32), []
        numbers = {one: number for number, one in enumerate(classes)}
        for row, value in enumerate(table.columns[name]):
            if not isinstance(value, str):
                raise table.error(row, f"column {name} holds {shown(value)}; expected the name of a class, as before")
        labels = [numbers.setdefault(value, len(numbers)) for value in table.columns[name]]
        return np.array(labels, np.float32), list(numbers)


def _head(rows: TrainingRows) -> dict[str, list[str]]:
    """Return the texts of the first rows, as many as are worth keeping."""
    characters, count = 0, 0
    for row in zip(*rows.texts.values(), strict=True):
        characters += sum(map(len, row))
        if count == _HEAD or (count > 2 and characters > _HEAD_CHARACTERS):  # three are shown
            break
        count += 1
    return {name: texts[:count] for name, texts in rows.texts.items()}
