"""`minisbert encode` into a folder: fixed blocks of rows, each embedded alone and written to a file of its own.

The bytes of a part do not depend on the number of shards, and a part has its name only when it is complete: shards run
anywhere, in any order, and again after a failure.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from ..errors import InputError, shown
from ..storage.files import read_json_object, replacing_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..sentence_transformer import SentenceTransformer

BLOCK_ROWS = 16_384
FORMATS = ("parquet", "npy", "safetensors")
_MANIFEST = "parts.json"
_END = 1 << 20  # bytes at both ends of the input that tell files apart


class Shard(NamedTuple):
    """One of several shares of the blocks: every `shards`-th, from block `number - 1`."""

    number: int = 1
    shards: int = 1

    def has(self, block: int) -> bool:
        """Return True if a block, counted from 0, is in this shard."""
        return block % self.shards == self.number - 1


def shard(text: str) -> Shard:
    """Parse "K/N"."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"got {text!r}; expected K/N with K from 1 to N, such as 3/16")
    return Shard(int(number), int(count))


class Block(NamedTuple):
    """Rows of the input: the number of the block, the row it starts at, and its texts, of which some may be missing."""

    number: int
    start: int
    texts: list[str | None]


def encode_parts(model: SentenceTransformer, options: argparse.Namespace) -> None:
    """Embed the blocks of a shard that are not there yet.

    Raises:
        InputError: the input cannot be read, a row holds no text, or the folder has parts of another run.
    """
    from ..training.checkpoint import weights_digest

    source, folder, form = Path(options.file), options.output, options.format or FORMATS[0]
    settings = {
        "source": {"file": source.name, "ends": _ends(source), "column": options.column, "rows": options.block_rows},
        "model": {"weights": weights_digest(model.state_dict()), "dtype": options.dtype},
        "embeddings": {
            name: getattr(options, name) for name in ("prompt_name", "normalize", "truncate_dim", "precision")
        },
        "format": form,
    }
    _check_same(folder, json.loads(json.dumps(settings)))
    written = kept = 0
    with tqdm(desc="Embedding", unit="row", disable=None) as bar:
        for block in _blocks(source, options.column, options.block_rows):
            target = folder / f"part-{block.number:06d}.{form}"
            if options.shard.has(block.number):
                if target.is_file():
                    kept += 1
                else:
                    _write_part(target, block, _embed(model, block, options, nulls=form == "parquet"))
                    written += 1
            bar.update(len(block.texts))
    sys.stderr.write(f"wrote {written} parts in {folder}{f', {kept} were there' if kept else ''}\n")


def _embed(
    model: SentenceTransformer, block: Block, options: argparse.Namespace, *, nulls: bool
) -> NDArray[np.generic]:
    """Embed the texts of a block that are there: (texts, dim)."""
    missing = block.texts.index(None) if None in block.texts else None
    if missing is not None and not nulls:
        raise InputError(
            f"got no text in row {block.start + missing} of {options.file} (from 0); expected one in every row: fill "
            f"it in, or write --format parquet, which has nulls"
        )
    found: NDArray[np.generic] = model.encode(
        [text for text in block.texts if text is not None],
        prompt_name=options.prompt_name,
        batch_size=options.batch_size,
        normalize_embeddings=options.normalize,
        truncate_dim=options.truncate_dim,
        precision=options.precision,
        show_progress_bar=False,
    )
    return found


def _write_part(target: Path, block: Block, embeddings: NDArray[np.generic]) -> None:
    """Write a part: embeddings alone, or in Parquet the row numbers of the input, from 0, beside them."""
    import numpy as np

    with replacing_file(target) as temporary:
        if target.suffix == ".npy":
            with temporary.open("wb") as file:
                np.save(file, embeddings)
        elif target.suffix == ".safetensors":
            from safetensors.numpy import save_file

            save_file({"embeddings": np.ascontiguousarray(embeddings)}, temporary)
        else:
            import pyarrow as pa
            from pyarrow import parquet

            from ..embedder import list_array

            there = np.fromiter((text is not None for text in block.texts), bool, len(block.texts))
            rows = pa.array(np.arange(block.start, block.start + len(block.texts)))
            table = pa.table({"row": rows, "embedding": list_array(embeddings, there)})
            parquet.write_table(table, temporary)


def _check_same(folder: Path, settings: dict[str, Any]) -> None:
    """Note in the folder what its parts are made of, or compare with what another shard noted."""
    manifest = folder / _MANIFEST
    if not manifest.is_file():
        if any(folder.glob("part-*")):
            raise InputError(
                f"{folder} has parts without {_MANIFEST}; expected parts of this run: choose another folder"
            )
        with replacing_file(manifest) as temporary:
            temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    noted = read_json_object(manifest)
    for name, value in settings.items():
        if noted.get(name) != value:
            raise InputError(
                f"{folder} has parts with {name} {shown(noted.get(name))}, and this run has {shown(value)}; expected "
                f"the same in every shard: choose another folder"
            )


def _ends(source: Path) -> str:
    """Digest of the size, the start and the end of a file, which is the same wherever the file is copied to."""
    try:
        with source.open("rb") as file:
            size = source.stat().st_size
            digest = hashlib.sha256(f"{size}".encode() + file.read(_END))
            file.seek(max(0, size - _END))
            digest.update(file.read(_END))
    except OSError as error:
        raise InputError(f"{source} cannot be read ({error.strerror}); expected a data file: check its path") from None
    return digest.hexdigest()[:32]


def _blocks(source: Path, column: str | None, rows: int) -> Iterator[Block]:
    """Cut the texts of a file into blocks of `rows`, the last one shorter."""
    start, waiting = 0, list[str | None]()
    for texts in _read(source, column, rows):
        waiting += texts
        while len(waiting) >= rows:
            yield Block(start // rows, start, waiting[:rows])
            start, waiting = start + rows, waiting[rows:]
    if waiting:
        yield Block(start // rows, start, waiting)
    elif not start:
        raise InputError(f"{source} holds no texts; expected at least one row: check the file")


def _read(source: Path, column: str | None, rows: int) -> Iterator[list[str | None]]:
    """Yield the texts of a column, or the lines of a file without columns, some at a time."""
    from ..data.readers import has_columns, read_lines
    from ..data.streaming import read_blocks

    if not has_columns(source):
        yield [*read_lines(source)]
        return
    done = 0
    for block in read_blocks(source, rows):
        columns = block.table.columns
        if column not in columns:
            raise InputError(f"got --column {column}; expected one of those of {source}: {', '.join(columns)}")
        texts = [*columns[column]]
        for place, text in enumerate(texts):
            if not (text is None or isinstance(text, str)):
                raise InputError(
                    f"got {shown(text)} in row {done + place} of {source} (from 0), column {column}; expected a text"
                )
        done += len(texts)
        yield texts
