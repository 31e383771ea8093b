"""`minisbert encode` and `minisbert similarity`: embed texts, write the embeddings or compare them."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import InputError
from ..storage.files import is_file, replacing_file, write_error
from .options import (
    Subparsers,
    add_command,
    add_model_options,
    check_one_process,
    check_output_file,
    load_model,
    output_path,
    positive,
    shortened,
    table,
)
from .shards import BLOCK_ROWS, add_shard_options, embed_texts, text_tables, wants_parts, write_parts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..sentence_transformer import SentenceTransformer


def add(commands: Subparsers) -> None:
    """Add the commands."""
    parser = add_command(
        commands, "encode", run_encode, example="minisbert encode all-MiniLM-L6-v2 texts.txt --output embeddings.npy"
    )
    computed = add_model_options(parser)
    parser.add_argument("file", help="texts, one per line; a data file with --column; - for standard input")
    parser.add_argument(
        "--output",
        type=output_path,
        required=True,
        metavar="PATH",
        help="file to write, (texts, dim), or folder of parts",
    )
    group = parser.add_argument_group("texts")
    group.add_argument(
        "--column", metavar="NAME", help="the column of a .tsv, .csv, .jsonl or .parquet file that holds the texts"
    )
    group.add_argument(
        "--prompt-name", metavar="NAME", help="saved prompt to put before each text (default: the model's own)"
    )
    computed.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="most texts in one forward pass (default: limit only the tokens)",
    )
    group = parser.add_argument_group("embeddings")
    group.add_argument("--normalize", action="store_true", help="scale each embedding to length 1")
    group.add_argument(
        "--truncate-dim", type=positive, metavar="N", help="keep only this many leading dimensions (default: all)"
    )
    group.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "float16", "int8", "uint8", "binary", "ubinary"),
        help="number format of the embeddings (default: float32)",
    )
    computed.add_argument("--threads", type=positive, metavar="N", help="CPU threads to compute with (default: all)")
    add_shard_options(parser)
    parser = add_command(
        commands,
        "similarity",
        run_similarity,
        example='minisbert similarity all-MiniLM-L6-v2 "a cat sleeps" "a kitten naps" "stocks fell"',
    )
    add_model_options(parser)
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="two texts or more")


def run_encode(options: argparse.Namespace) -> None:
    """Embed texts and write the embeddings as a .npy file, or as parts in a folder that several processes fill."""
    in_parts = wants_parts(options)
    if not options.shard:
        check_one_process("encode", fix="leave the launcher out, and start a process with --shard K/N for each K of N")
    import torch

    from ..data.readers import has_columns

    if options.threads:
        torch.set_num_threads(options.threads)
    if in_parts:
        write_parts(options)
        return
    if options.column is None and is_file(Path(options.file)) and has_columns(Path(options.file)):
        raise InputError(f"got {options.file}, which has columns, without --column; expected the name of one to embed")
    check_output_file(options.output, inputs=() if options.file == "-" else (options.file,))
    output: Path = options.output.resolve()  # a link stays a link; its target is written
    with _standard_input(options, output) as file:
        # What is wrong with a row is said before a model is loaded.
        rows = sum(map(len, text_tables(options, file=file)))
        if not rows:
            name = "standard input" if file else options.file
            raise InputError(f"{name} holds no texts; expected one per line")
        blocks = _embedded(options, load_model(options), rows, file, output.parent)
        with closing(blocks), replacing_file(output) as temporary, temporary.open("wb") as target:
            shape, dtype = _write_array(target, blocks, rows)
            if shape[0] != rows:
                raise InputError(f"{options.file} changed while it was read; expected it to stay: run this again")
    sys.stderr.write(f"wrote {options.output}: {shape[0]} x {shape[1]} {dtype}\n")


def run_similarity(options: argparse.Namespace) -> None:
    """Print the similarity of each pair of texts."""
    texts: list[str] = options.texts
    if len(texts) < 2:
        raise InputError("got 1 text; expected at least two to compare: add one")
    model = load_model(options)
    embeddings = model.encode(texts)
    scores = model.similarity(embeddings, embeddings).tolist()
    header = ["", *(f"[{number}]" for number in range(1, len(texts) + 1))]
    rows = [
        [f"[{number}] {shortened(text)}", *(f"{score:.4f}" for score in row)]
        for number, (text, row) in enumerate(zip(texts, scores, strict=True), start=1)
    ]
    print(table([header, *rows]))


@contextmanager
def _standard_input(options: argparse.Namespace, output: Path) -> Iterator[BinaryIO | None]:
    """Yield a file of what standard input holds, which is read twice; None if the texts are in a file."""
    if options.file != "-" or options.column is not None:
        yield None
        return
    folder = next(folder for folder in output.parents if folder.is_dir())
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            shutil.copyfileobj(sys.stdin.buffer, file)
            file.flush()
        except OSError as error:
            raise write_error(output, error) from None
        yield file


def _embedded(
    options: argparse.Namespace, model: SentenceTransformer, rows: int, file: BinaryIO | None, folder: Path
) -> Generator[NDArray[Any], None, None]:
    """Yield the embeddings of each block of texts: (block, dim); int8 and uint8 in the ranges of all of them."""
    import numpy as np
    import torch

    from ..model.encoding import progress_bar
    from ..prefetch import prefetch
    from ..similarity import check_finite, quantize_embeddings

    ranged = options.precision in ("int8", "uint8") and rows > BLOCK_ROWS
    chosen = argparse.Namespace(**{**vars(options), "precision": "float32"}) if ranged else options
    tables = prefetch(text_tables(options, file=file), 1)
    with closing(tables), progress_bar(rows, show=rows > BLOCK_ROWS) as bar, ExitStack() as stack:
        kept = stack.enter_context(tempfile.TemporaryFile(dir=folder)) if ranged else None
        limits, shapes = None, list[tuple[int, ...]]()
        for table in tables:
            values = embed_texts(chosen, model, table.columns[options.column or "text"], show_progress_bar=bar is None)
            if kept is None:
                yield values
            else:
                check_finite(torch.from_numpy(values), what="embeddings", first=sum(shape[0] for shape in shapes))
                kept.write(np.ascontiguousarray(values).data)
                shapes.append(values.shape)
                both = values if limits is None else np.concatenate([limits, values])
                limits = np.stack([both.min(axis=0), both.max(axis=0)])
            if bar is not None:
                bar.update(len(table))
        if kept is not None:
            kept.seek(0)
            for shape in shapes:
                values = np.fromfile(kept, np.float32, shape[0] * shape[1]).reshape(shape)
                yield quantize_embeddings(values, options.precision, ranges=limits)


def _write_array(file: BinaryIO, blocks: Iterable[NDArray[Any]], rows: int) -> tuple[tuple[int, int], str]:
    """Write blocks of rows as np.save writes all of them together: the shape of what was written, and its dtype."""
    import numpy as np

    written, dim, dtype = 0, 0, ""
    for values in blocks:
        if not written:
            dim, dtype = values.shape[1], str(values.dtype)
            header = {"descr": np.lib.format.dtype_to_descr(values.dtype), "fortran_order": False, "shape": (rows, dim)}
            np.lib.format.write_array_header_1_0(file, header)
        file.write(np.ascontiguousarray(values).data)
        written += len(values)
    return (written, dim), dtype
