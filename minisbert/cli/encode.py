"""`minisbert encode`: texts of a file to an array of embeddings."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import InputError
from ..storage.files import is_file, replacing_file, temporary_path
from .options import Subparsers, add_command, add_model_options, check_writable, load_model, output_path, positive


def add(commands: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "encode",
        run,
        about="Embed texts and write the embeddings as a .npy file.",
        example="minisbert encode all-MiniLM-L6-v2 texts.txt --output embeddings.npy",
    )
    parser.add_argument("model", help="model folder or name")
    parser.add_argument("file", help="texts, one a line; a data file with --column; - for standard input")
    parser.add_argument("--output", type=output_path, required=True, help="file to write, (texts, dim)")
    parser.add_argument("--column", help="column of a .tsv, .csv, .jsonl or .parquet file that holds the texts")
    parser.add_argument("--prompt-name", help="saved prompt to put before each text")
    parser.add_argument("--batch-size", type=positive, help="most texts in one forward pass (default: by tokens)")
    parser.add_argument("--normalize", action="store_true", help="scale each embedding to length 1")
    parser.add_argument("--truncate-dim", type=positive, help="keep only so many leading dimensions")
    parser.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "int8", "uint8", "binary", "ubinary"),
        help="output format",
    )
    add_model_options(parser)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    import numpy as np

    texts = _texts(options.file, options.column)
    output: Path = options.output.resolve()  # a link keeps its name; its target is written
    check_writable(output.parent, file=temporary_path(output).name)
    if output.exists() and not output.is_file():
        kind = "folder" if output.is_dir() else "device or pipe"
        raise InputError(f"{options.output} is a {kind}; expected the name of a file to write")
    if options.file != "-" and output == Path(options.file).resolve():
        raise InputError(f"got {options.output} to read and to write; expected another --output, or the texts are lost")
    model = load_model(options, options.model)
    embeddings = model.encode(
        texts,
        prompt_name=options.prompt_name,
        batch_size=options.batch_size,
        normalize_embeddings=options.normalize,
        truncate_dim=options.truncate_dim,
        precision=options.precision,
        show_progress_bar=True,
    )
    with replacing_file(output) as temporary, temporary.open("wb") as file:
        np.save(file, embeddings)
    sys.stderr.write(f"wrote {options.output}: {embeddings.shape[0]} x {embeddings.shape[1]} {embeddings.dtype}\n")


def _texts(name: str, column: str | None) -> list[str]:
    from ..data.readers import has_columns, lines_of, read_columns, read_lines
    from ..data.roles import column_texts
    from ..data.rows import Table

    if column is not None:
        columns, lines = read_columns(Path(name))
        if column not in columns:
            raise InputError(f"{name} has the columns {list(columns)}; got --column {column}, which is not there")
        texts = column_texts(Table(columns, name, lines), column)
    elif is_file(Path(name)) and has_columns(Path(name)):
        raise InputError(f"got {name}, which has columns, and no --column; expected the name of the one to embed")
    elif name != "-":
        texts = read_lines(Path(name))
    else:
        texts = lines_of(sys.stdin.buffer.read(), source="standard input")
    if not texts:
        raise InputError(f"{'standard input' if name == '-' else name} holds no texts; expected one a line")
    return texts
