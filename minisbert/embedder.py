"""`Embedder`: a model by its name, for engines that send a function to many processes; Arrow in, Arrow out."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .errors import ConfigError, InputError, InputTypeError, check_count, nearest, shown
from .storage.files import sampled_digest
from .storage.parts import list_array

if TYPE_CHECKING:
    from .sentence_transformer import SentenceTransformer

OutputDType = Literal["float32", "float16", "int8"]

_MODEL_FILES = (".json", ".txt", ".model", ".safetensors", ".bin")  # and no card, log, or plot

_LOADED: dict[tuple[Any, ...], SentenceTransformer] = {}  # those of this process: engines unpickle for every batch
_LOCK = threading.RLock()  # threads of a process embed in turns, each with all its cores
if hasattr(os, "register_at_fork"):  # a fork while another thread embeds must not inherit a lock that nobody opens
    os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)


@dataclass(frozen=True)
class Embedder:
    """A model by its name: loaded at first use, once in each process; pickles as its arguments alone.

    For a folder a digest of samples of its files is one of them, taken now: a cache of embeddings that goes by the
    pickle, hash or token of its function computes them again when the weights are others.

    Calling it with a batch embeds the texts of `column`. A table or record batch of Arrow, a DataFrame of pandas or
    Polars and a mapping of columns return with the column `output`; an iterator of batches gives them one by one. An
    array or Series of texts becomes one of embeddings, and a list or NumPy array becomes (texts, dim).

    Args:
        model: name or folder, as of `SentenceTransformer`. A folder must be there in every process.
        dtype: of the weights, as of `SentenceTransformer`.
        threads: of the CPU, while it embeds. By default OMP_NUM_THREADS; without it, the CPUs of a task of Spark, one
            in a process that multiprocessing started, and otherwise all.
        column: name of the column of texts.
        output: name of the column of embeddings.
        output_dtype: "float32", "float16", or "int8" for embeddings of length at most 1, times 127 and rounded.
        fixed_size: columns of Arrow are lists of a fixed size; False for lists of any size, which Spark reads.
        device: as of `SentenceTransformer`.
        revision: branch, tag or commit on the Hub.
        prompt_name: as of `encode`.
        prompt: as of `encode`.
        batch_size: as of `encode`.
        normalize_embeddings: as of `encode`.
        truncate_dim: as of `encode`.

    Raises:
        ConfigError: an argument has an impossible value.
    """

    model: str | Path
    _: KW_ONLY
    dtype: Literal["float32", "bfloat16", "float16", "int8"] | None = None
    threads: int | None = None
    column: str = "text"
    output: str = "embedding"
    output_dtype: OutputDType = "float32"
    fixed_size: bool = True
    device: str | None = None
    revision: str | None = None
    prompt_name: str | None = None
    prompt: str | None = None
    batch_size: int | None = None
    normalize_embeddings: bool = False
    truncate_dim: int | None = None
    _content: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.model, (str, os.PathLike)):
            raise ConfigError(f"got model={shown(self.model)}; expected a name or folder: a loaded model is not sent")
        folder = Path(self.model).expanduser()  # workers may have another working directory
        if folder.is_dir():
            object.__setattr__(self, "_content", _digest(folder))
        object.__setattr__(self, "model", str(folder.absolute() if folder.is_dir() else self.model))
        if self.threads is not None:
            object.__setattr__(self, "threads", check_count(self.threads, "threads", otherwise="None to choose"))
        if self.output_dtype not in ("float32", "float16", "int8"):
            raise ConfigError(f"got output_dtype={self.output_dtype!r}; expected 'float32', 'float16' or 'int8'")

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return "minisbert.Embedder", *((one.name, getattr(self, one.name)) for one in fields(self))

    def __hash__(self) -> int:
        """Return the same number in every process."""
        return int.from_bytes(hashlib.sha256(repr(self.__dask_tokenize__()).encode()).digest()[:7], "big")

    def load(self) -> SentenceTransformer:
        """Return the model, loaded at the first call in this process.

        Raises:
            ModelError: it cannot be found or read.
        """
        from .sentence_transformer import SentenceTransformer

        key = (self.model, self._content, self.dtype, self.device, self.revision)
        with _LOCK:
            if key not in _LOADED:
                _LOADED[key] = SentenceTransformer(
                    self.model, dtype=self.dtype, device=self.device, revision=self.revision
                )
            return _LOADED[key]

    @property
    def content(self) -> str:
        """The digest of a folder, taken when this was made; "" for a name on the Hub."""
        return self._content

    @property
    def dimension(self) -> int:
        """Size of an embedding; loads the model."""
        model = self.load()
        return model.dimension(model.truncate_dim if self.truncate_dim is None else self.truncate_dim)

    def encode(self, texts: list[str]) -> Any:
        """Embed texts: (texts, dim) of `output_dtype`.

        Raises:
            InputError: "int8" for an embedding with a value outside -1 to 1.
        """
        import torch

        with _LOCK:
            model, before = self.load(), torch.get_num_threads()
            torch.set_num_threads(self.threads or _usual_threads() or before)
            try:
                found = model.encode(
                    texts,
                    prompt_name=self.prompt_name,
                    prompt=self.prompt,
                    batch_size=self.batch_size,
                    normalize_embeddings=self.normalize_embeddings,
                    truncate_dim=self.truncate_dim,
                    show_progress_bar=False,
                )
            finally:
                torch.set_num_threads(before)
        if self.output_dtype != "int8":
            return found.astype(self.output_dtype, copy=False)
        if (largest := float(np.abs(found).max(initial=0.0))) > 1.001:
            raise InputError(
                f"got an embedding with the value {largest:.3g} for output_dtype='int8'; expected values from -1 to 1: "
                f"set normalize_embeddings=True"
            )
        return np.rint(found.clip(-1, 1) * 127).astype(np.int8)

    def embed_array(self, texts: Any) -> Any:
        """Embed an array or chunked array of Arrow: one array of lists of `dim` values, with the same nulls.

        Raises:
            InputTypeError: it does not hold texts.
        """
        import pyarrow as pa

        kind = texts.type.value_type if pa.types.is_dictionary(texts.type) else texts.type
        names = ("string", "large_string", "string_view", "null")
        if str(kind) not in names:
            raise InputTypeError(f"got a column of {texts.type}; expected one of {', '.join(names)}: cast it to string")
        rows = texts.to_pylist()
        present = [text for text in rows if text is not None]
        there = np.fromiter((text is not None for text in rows), bool, len(rows))
        return list_array(self.encode(present), there, fixed_size=self.fixed_size)

    def embed_table(self, table: Any, column: str | None = None, output: str | None = None) -> Any:
        """Embed a column of a table or record batch of Arrow, and return it with one more; its metadata is kept.

        Args:
            table: a `pyarrow.Table` or `pyarrow.RecordBatch`.
            column: name of the column of texts; by default that of this embedder.
            output: name of the column of embeddings; by default that of this embedder.

        Raises:
            InputTypeError: this is none, or the column does not hold texts.
            InputError: no such column, or `output` is there already.
        """
        import pyarrow as pa

        if not isinstance(table, (pa.Table, pa.RecordBatch)):
            raise InputTypeError(f"got {type(table).__name__}; expected a pyarrow.Table or pyarrow.RecordBatch")
        column, output = column or self.column, output or self.output
        self._check(table.column_names, column, output)
        found = self.embed_array(table.column(column))
        field = pa.field(output, found.type)
        if isinstance(table, pa.Table):
            return table.append_column(field, found)
        return pa.RecordBatch.from_arrays([*table.columns, found], schema=table.schema.append(field))

    def __call__(self, batch: Any) -> Any:
        """Embed a batch of any of the kinds above.

        Raises:
            InputTypeError: it is of another kind, or does not hold texts.
            InputError: no such column, a column `output`, or a text that is missing where no null can be kept.
        """
        library, name = type(batch).__module__.partition(".")[0], type(batch).__name__
        if library == "pyarrow" and name in ("Table", "RecordBatch"):
            return self.embed_table(batch)
        if library == "pyarrow" and (name == "ChunkedArray" or name.endswith("Array")):
            return self.embed_array(batch)
        if library == "polars" and name in ("DataFrame", "Series"):
            return self._polars(batch, name)
        if library == "pandas" and name in ("DataFrame", "Series"):
            return self._pandas(batch, name)
        if isinstance(batch, Mapping):
            self._check(list(batch), self.column, self.output)
            return {**batch, self.output: self.encode(_texts(batch[self.column]))}
        if isinstance(batch, (list, tuple, np.ndarray)):
            return self.encode(_texts(batch))
        if isinstance(batch, Iterator):
            return map(self, batch)
        raise InputTypeError(
            f"got a batch of type {library}.{name}; expected a table, record batch or array of Arrow, a DataFrame or "
            f"Series of pandas or Polars, a dict of columns, or a list of texts"
        )

    def _polars(self, batch: Any, name: str) -> Any:
        import polars as pl

        if name == "Series":
            return pl.Series(batch.name, self.embed_array(batch.to_arrow()))
        return pl.from_arrow(self.embed_table(batch.to_arrow()))

    def _pandas(self, batch: Any, name: str) -> Any:
        import pandas as pd

        if name == "DataFrame":
            self._check(list(batch.columns), self.column, self.output)
        texts = batch if name == "Series" else batch[self.column]
        present = texts.notna()
        rows = pd.Series(None, index=range(len(texts)), dtype=object)
        rows[present.to_numpy()] = pd.Series(list(self.encode(_texts(texts[present]))), dtype=object).to_numpy()
        rows.index = batch.index
        return rows if name == "Series" else batch.assign(**{self.output: rows})

    @staticmethod
    def _check(names: list[Any], column: str, output: str) -> None:
        """Check that a batch has the column of texts, and none of the name of the output."""
        if column not in names:
            near = nearest(column, [str(name) for name in names], otherwise=[str(name) for name in names])
            raise InputError(f"got no column {column!r}; expected its texts: the columns are {near or 'none'}")
        if output in names:
            raise InputError(f"got a column {output!r} already; expected none: name another output, or drop it")


def _digest(folder: Path) -> str:
    """Return a digest of the names and of samples of the files of a model, also in the folders of its modules."""
    digest = hashlib.sha256()
    with suppress(OSError, ValueError):  # what cannot be read is said where the model is loaded
        for path in sorted([*folder.iterdir(), *folder.glob("[0-9]*_*/*")]):
            if path.suffix in _MODEL_FILES:
                digest.update(f"{path.relative_to(folder).as_posix()} {sampled_digest(path)}\n".encode())
    return digest.hexdigest()[:16]


def _texts(column: Iterable[Any]) -> list[str]:
    """Return a column as a list of texts."""
    texts = column.tolist() if isinstance(column, np.ndarray) else list(column)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputTypeError(
                f"got {shown(text)} in row {row}; expected a text: fill or drop it, or send Arrow, which keeps nulls"
            )
    return texts


def _usual_threads() -> int | None:
    """Return the threads that leave other processes theirs, or None for torch's own number."""
    if os.environ.get("OMP_NUM_THREADS"):  # set by Ray, Dask's workers, joblib and Spark's executors
        return None
    spark = sys.modules.get("pyspark")
    if spark is not None and (task := spark.TaskContext.get()) is not None:
        return max(1, int(task.cpus()))
    from multiprocessing import parent_process

    return None if parent_process() is None else 1
