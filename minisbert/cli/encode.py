"""`minisbert encode` and `minisbert similarity`: embed texts, write the embeddings or compare them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import InputError
from ..storage.files import is_file, replacing_file, temporary_path
from .options import (
    Subparsers,
    add_command,
    add_model_options,
    check_writable,
    load_model,
    output_path,
    positive,
    shortened,
    table,
)
from .shards import add_shard_options, embed_texts, wants_parts, write_parts


def add(commands: Subparsers) -> None:
    """Add the commands."""
    parser = add_command(
        commands, "encode", run_encode, example="minisbert encode all-MiniLM-L6-v2 texts.txt --output embeddings.npy"
    )
    add_model_options(parser)
    parser.add_argument("file", help="texts, one per line; a data file with --column; - for standard input")
    parser.add_argument(
        "--output",
        type=output_path,
        required=True,
        metavar="PATH",
        help="file to write, (texts, dim), or folder of parts",
    )
    parser.add_argument(
        "--column", metavar="NAME", help="the column of a .tsv, .csv, .jsonl or .parquet file that holds the texts"
    )
    parser.add_argument("--prompt-name", metavar="NAME", help="saved prompt to put before each text")
    parser.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="most texts in one forward pass (default: limit only the tokens)",
    )
    parser.add_argument("--normalize", action="store_true", help="scale each embedding to length 1")
    parser.add_argument("--truncate-dim", type=positive, metavar="N", help="keep only this many leading dimensions")
    parser.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "float16", "int8", "uint8", "binary", "ubinary"),
        help="number format of the embeddings",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads to compute with (default: all)")
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
    import numpy as np
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    if in_parts:
        write_parts(options)
        return
    texts = _texts(options.file, options.column)
    output: Path = options.output.resolve()  # a link stays a link; its target is written
    check_writable(output.parent, file=temporary_path(output).name)
    if output.exists() and not output.is_file():
        kind = "folder" if output.is_dir() else "device or pipe"
        raise InputError(f"{options.output} is a {kind}; expected the name of a file to write")
    if options.file != "-" and output == Path(options.file).resolve():
        raise InputError(
            f"got {options.output} as input and --output; expected two files, or the texts are lost: choose another"
        )
    model = load_model(options)
    embeddings = embed_texts(options, model, texts)
    with replacing_file(output) as temporary, temporary.open("wb") as file:
        np.save(file, embeddings)
    sys.stderr.write(f"wrote {options.output}: {embeddings.shape[0]} x {embeddings.shape[1]} {embeddings.dtype}\n")


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


def _texts(name: str, column: str | None) -> list[str]:
    """Read the texts of a file, a column of a data file, or standard input."""
    from ..data.readers import has_columns, lines_of, read_columns, read_lines
    from ..data.roles import column_texts
    from ..data.rows import Table

    if column is not None:
        columns, lines, *_ = read_columns(Path(name))
        if column not in columns:
            raise InputError(f"got --column {column}; expected one of the columns of {name}: {', '.join(columns)}")
        texts = column_texts(Table(columns, name, lines), column)
    elif is_file(Path(name)) and has_columns(Path(name)):
        raise InputError(f"got {name}, which has columns, without --column; expected the name of the one to embed")
    elif name != "-":
        texts = read_lines(Path(name))
    else:
        texts = lines_of(sys.stdin.buffer.read(), source="standard input")
    if not texts:
        raise InputError(f"{'standard input' if name == '-' else name} holds no texts; expected one per line")
    return texts
