"""`minisbert encode` into a folder: one file for each block of rows, by one process or several that share the blocks.

A block is embedded alone, so its file holds the same bytes whoever writes it. The range of blocks of a shard follows
from the number of rows: processes need to know nothing of each other.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import ConfigError, InputError, shown
from ..storage.files import (
    is_file,
    read_json_object,
    remove_leftovers,
    sampled_digest,
    temporary_path,
    write_error,
)
from ..storage.parts import PART_FORMATS, is_whole, parquet_types, write_part
from .options import check_writable, column_names, load_model, positive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..data.rows import Table
    from ..sentence_transformer import SentenceTransformer

BLOCK_ROWS = 16_384  # texts of a part, or of one file, that are embedded together
_MANIFEST = "_manifest.json"  # names that begin so are no data to readers of Parquet folders
_PRECISIONS = ("float32", "float16", "binary", "ubinary")


def shard(text: str) -> tuple[int, int]:
    """Parse "K/N", with K from 1 to N."""
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"got {text!r}; expected K/N with K from 1 to N, such as 3/16")
    return int(match[1]), int(match[2])


def add_shard_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of output in a folder."""
    group = parser.add_argument_group("a folder of parts, one for each block of rows: --format or --shard asks for it")
    group.add_argument("--format", choices=PART_FORMATS, help="of the parts (default: parquet)")
    group.add_argument("--shard", type=shard, metavar="K/N", help="embed the K-th of N ranges of blocks, K from 1 to N")
    group.add_argument(
        "--block-rows", type=positive, metavar="N", help=f"rows of a part, embedded alone (default: {BLOCK_ROWS:,})"
    )
    group.add_argument("--keep", type=column_names, metavar="NAMES", help="columns to copy to Parquet, such as id,url")


def wants_parts(options: argparse.Namespace) -> bool:
    """Return True if the output is a folder of parts.

    Raises:
        ConfigError: an option of parts is given without a folder of parts.
    """
    wanted = bool(options.shard or options.format)
    for name in ("block_rows", "keep"):
        if not wanted and getattr(options, name):
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"got {option} for one file; expected a folder: pass --format parquet too")
    return wanted


def write_parts(options: argparse.Namespace) -> None:
    """Embed the blocks of the shard whose parts are not there, and write each to a file of its own.

    Raises:
        InputError: the source cannot be read, or the folder holds something else than parts of this run.
        ConfigError: options exclude each other.
    """
    from ..data.streaming import count_rows
    from ..model.encoding import progress_bar
    from ..prefetch import prefetch

    form, keep = options.format or "parquet", options.keep or []
    _check_options(options, form, keep)
    folder, source = options.output, Path(options.file)
    check_writable(folder)
    rows = count_rows(source, lines=options.column is None)
    if not rows:
        raise InputError(f"{source} holds no texts; expected at least one: check the file")
    size = options.block_rows or BLOCK_ROWS
    blocks, (number, count) = -(-rows // size), options.shard or (1, 1)
    mine = range((number - 1) * blocks // count, number * blocks // count)
    own = {block: folder / f"part-{block:06}.{form}" for block in mine}
    # What is wrong with the first rows is said before a model is loaded.
    next(text_tables(options, keep, 0, min(rows, size)))
    model = load_model(options)
    about = _about(options, model, form, keep) | {
        "block_rows": size,
        "rows": rows,
        "dim": model.dimension(options.truncate_dim),
    }
    _claim(folder, about)
    lengths = {block: min(size, rows - block * size) for block in own}
    missing = [block for block, path in own.items() if not is_whole(path, rows=lengths[block])]
    if missing:
        remove_leftovers(folder, "|".join(re.escape(own[block].name) for block in missing))
    types = parquet_types(source) if source.suffix.lower() == ".parquet" else {}
    done = 0
    try:
        with progress_bar(sum(lengths[block] for block in missing), show=len(missing) > 1) as bar:
            for first, last in _runs(missing):
                tables = prefetch(text_tables(options, keep, first * size, last * size), 1)
                with closing(tables):
                    for block, table in zip(range(first, last), tables, strict=True):
                        values, there = _embed(options, model, table, show_progress_bar=bar is None)
                        columns = {name: (table.columns[name], types.get(name)) for name in keep}
                        write_part(own[block], values, first=block * size, about=about, there=there, columns=columns)
                        done += 1
                        if bar is not None:
                            bar.update(len(table))
    except KeyboardInterrupt:
        left = f"{len(missing) - done:,} of {len(own):,}"
        sys.stderr.write(f"{left} parts are left: run the same command again to write them\n")
        raise
    earlier = f", {len(own) - done:,} were there" if done < len(own) else ""
    none = "" if own else f": the file has {blocks:,} blocks for {count:,} shards, and this shard none of them"
    sys.stderr.write(f"wrote {done:,} of {len(own):,} parts to {folder}{earlier}{none}\n")


def _check_options(options: argparse.Namespace, form: str, keep: list[str]) -> None:
    from ..data.readers import has_columns

    if options.precision not in _PRECISIONS:
        raise ConfigError(
            f"got --precision {options.precision} for parts, whose ranges would differ; expected one of "
            f"{', '.join(_PRECISIONS)}: quantize afterwards, with one range for all"
        )
    if keep and form != "parquet":
        raise ConfigError(f"got --keep with --format {form}; expected parquet, which has columns: leave one out")
    if taken := {"row", "embedding"} & set(keep):
        raise ConfigError(f"got --keep {taken.pop()}, a column that each part has; expected others: rename it")
    if options.file == "-":
        raise InputError("got standard input for parts; expected a file, which can be read twice: write one first")
    if has_columns(Path(options.file)) != (options.column is not None):
        expected = "the name of the one to embed" if options.column is None else "none for a file of lines"
        got = "no --column" if options.column is None else f"--column {options.column}"
        raise InputError(f"got {got} for {options.file}; expected {expected}")
    if options.column is None and keep:
        raise ConfigError(f"got --keep for {options.file}, a file of lines; expected a file that has columns")
    if options.output.exists() and not options.output.is_dir():
        raise InputError(f"{options.output} is a file; expected a folder for parts: choose another name")
    if form == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise ConfigError(
                "got --format parquet without pyarrow; expected it: pip install pyarrow, or pass --format npy"
            ) from None


# ---- the run --------------------------------------------------------------------------------------------------------


def _about(options: argparse.Namespace, model: SentenceTransformer, form: str, keep: list[str]) -> dict[str, Any]:
    """Describe what decides the bytes of the parts."""
    return {
        "source": sampled_digest(Path(options.file)),
        "column": options.column,
        "keep": keep,
        "model": model.digest(),
        "prompt": model.prompt_text(None, options.prompt_name),
        "batch_size": options.batch_size,
        "normalize": options.normalize,
        "precision": options.precision,
        "format": form,
    }


def _claim(folder: Path, about: Mapping[str, Any]) -> None:
    """Write the manifest of a new folder; of several processes that start at once, the first does.

    Raises:
        InputError: the folder is one of another run, or holds other files.
    """
    path = folder / _MANIFEST
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not is_file(path):
            others = [one.name for one in folder.iterdir() if one.name[0] != "." and one.name != _MANIFEST]
            if others and not is_file(path):  # another process may have made it, and parts, since
                raise InputError(f"{folder} holds {shown(min(others))} and no manifest; expected a new or empty folder")
            temporary = temporary_path(path)
            temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            try:
                os.link(temporary, path)
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                os.replace(temporary, path)  # noqa: PTH105
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    before = read_json_object(path)
    changed = [
        f"{name} was {shown(before.get(name))} and is {shown(value)}"
        for name, value in about.items()
        if before.get(name) != value
    ]
    if changed:
        raise InputError(f"{folder} holds parts of another run ({'; '.join(changed)}); expected a new or empty folder")


def _embed(
    options: argparse.Namespace, model: SentenceTransformer, table: Table, *, show_progress_bar: bool
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Embed the texts of a block that are there: (texts, dim), and which rows have one, (rows,)."""
    import numpy as np

    texts = table.columns[options.column or "text"]
    there = np.array([text is not None for text in texts])
    present = [text for text in texts if text is not None]
    return embed_texts(options, model, present, show_progress_bar=show_progress_bar), there


def embed_texts(
    options: argparse.Namespace, model: SentenceTransformer, texts: list[str], *, show_progress_bar: bool
) -> NDArray[Any]:
    """Embed texts as the options say: (texts, dim)."""
    half = options.precision == "float16"
    values: NDArray[Any] = model.encode(
        texts,
        prompt_name=options.prompt_name,
        batch_size=options.batch_size,
        normalize_embeddings=options.normalize,
        truncate_dim=options.truncate_dim,
        precision="float32" if half else options.precision,
        show_progress_bar=show_progress_bar,
    )
    return values.astype("float16") if half else values


def _runs(blocks: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the first block, and the one after the last, of each run of neighbours."""
    for _, run in groupby(enumerate(blocks), key=lambda pair: pair[1] - pair[0]):
        members = [block for _, block in run]
        yield members[0], members[-1] + 1


def text_tables(
    options: argparse.Namespace,
    keep: Sequence[str] = (),
    first: int = 0,
    last: int | None = None,
    *,
    file: BinaryIO | None = None,
) -> Iterator[Table]:
    """Yield the blocks of rows `first` to `last`, with the column of texts and those to keep.

    Args:
        options: of the command.
        keep: names of columns.
        first: number of the first row.
        last: number of the row to stop before; None for all.
        file: what was standard input, to be read instead of `options.file`.

    Raises:
        InputError: a column is missing, or a value is no text; the message names the row.
    """
    from ..data.roles import column_texts
    from ..data.streaming import read_blocks, read_line_blocks

    size, path = options.block_rows or BLOCK_ROWS, Path("standard input" if file else options.file)
    column = options.column or "text"
    names = list(dict.fromkeys([column, *keep]))
    if options.column is None:
        blocks = read_line_blocks(path, size, first=first, last=last, file=file)
    else:
        blocks = read_blocks(path, size, columns=names, first=first, last=last)
    in_parquet = options.format == "parquet" or (options.shard and options.format is None)
    for block in blocks:
        table = block.table
        for name in names:
            if name not in table.columns:
                option = "--column" if name == column else "--keep"
                columns = ", ".join(table.columns)
                raise InputError(f"got {option} {name}; expected one of the columns of {options.file}: {columns}")
        texts = table.columns[column]
        if in_parquet:  # where a text that is missing has no embedding
            texts = ["" if text is None else text for text in texts]
        column_texts(replace(table, columns={column: texts}), column)
        yield table.select(names)
