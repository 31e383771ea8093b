"""`minisbert tokenize`: keep the token ids of a data file of any size in a store, to be trained on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import Subparsers, add_command, add_model_options, column_names, label_scale, load_model, output_path
from .settings import read_prompts

if TYPE_CHECKING:
    from ..data.stored_rows import StoredRows
    from ..sentence_transformer import SentenceTransformer


def add(commands: Subparsers) -> None:
    """Add the command."""
    example = "minisbert tokenize all-MiniLM-L6-v2 pairs.parquet --token-store cache"
    parser = add_command(commands, "tokenize", run_tokenize, example=example)
    add_model_options(parser)
    parser.add_argument("data", type=Path, metavar="FILE", help="training rows")
    parser.add_argument(
        "--token-store", type=output_path, required=True, metavar="DIR", help="folder of stores, one for each file"
    )
    parser.add_argument("--columns", type=column_names, metavar="NAMES", help="the columns to use, in order")
    parser.add_argument("--scale", type=label_scale, metavar="LOW-HIGH", help="the scores that become 0 and 1")
    parser.add_argument("--classes", action="store_true", help="labels are classes, as for SoftmaxLoss")
    parser.add_argument("--max-seq-length", type=int, metavar="TOKENS", help="truncate longer texts")
    parser.add_argument("--prompts", type=read_prompts, metavar="TEXT", help="as for minisbert train")


def run_tokenize(options: argparse.Namespace) -> None:
    """Tokenize a data file once, into files that are mapped into memory, and print their folder.

    Run again after an interruption, it goes on where it was. `minisbert train` and `Trainer` take the same folder as
    their token store, with the same file, model, columns, prompts and maximum length.
    """
    rows = store_of(options, load_model(options), prompts=options.prompts, classes=options.classes)
    header = rows.store.header
    print(rows.store.folder)
    print(f"{rows.describe()}; {header['tokens']:,} tokens, {header['truncated']:,} texts cut")


def store_of(options: argparse.Namespace, model: SentenceTransformer, *, prompts: Any, classes: bool) -> StoredRows:
    """Open or make the token store that the options name, for a model that is given their maximum length."""
    from ..data.stored_rows import stored_rows
    from ..training.prompts import column_prompts

    if options.max_seq_length is not None:
        model.max_seq_length = options.max_seq_length
    return stored_rows(
        options.data,
        model.transformer.text_tokenizer,
        cache=options.token_store,
        prompts=lambda columns: column_prompts(prompts, columns, dataset=""),
        columns=options.columns,
        scale=options.scale,
        classes=classes,
        show_progress_bar=True,
    )
