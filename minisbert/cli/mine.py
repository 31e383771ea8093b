"""`minisbert mine`: add hard negatives to pairs of texts."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..storage.files import replacing_file
from .options import (
    Subparsers,
    add_command,
    add_model_options,
    check_one_process,
    check_output_file,
    column_names,
    load_model,
    output_path,
    positive,
)

_FORMATS = ("triplet", "n-tuple", "labeled-pair", "labeled-list")


def add(commands: Subparsers) -> None:
    """Add the command."""
    example = "minisbert mine all-MiniLM-L6-v2 pairs.tsv --corpus passages.txt --output triplets.jsonl"
    parser = add_command(commands, "mine", run_mine, example=example)
    computed = add_model_options(parser)
    parser.add_argument("data", type=Path, metavar="FILE", help="pairs of an anchor and a positive")
    parser.add_argument("--output", type=output_path, required=True, metavar="FILE", help=".jsonl file to write")
    parser.add_argument(
        "--columns", type=column_names, metavar="A,B", help="anchor and positive (default: the first two)"
    )
    group = parser.add_argument_group("documents")
    group.add_argument("--corpus", metavar="FILE", help="more documents: lines of text, or a data file's column text")
    group.add_argument("--corpus-embeddings", metavar="FILE", help=".npy file of their embeddings, read by blocks")
    group = parser.add_argument_group("negatives")
    group.add_argument("--num-negatives", type=positive, default=3, metavar="N", help="of each anchor (default: 3)")
    group.add_argument("--range-min", type=int, default=0, metavar="N", help="skip the N best candidates (default: 0)")
    group.add_argument("--range-max", type=int, metavar="N", help="consider only the N best candidates (default: all)")
    for name, meaning in (
        ("max-score", "leave out candidates that score higher"),
        ("min-score", "leave out candidates that score lower"),
        ("absolute-margin", "negatives score lower than the positive by this much"),
        ("relative-margin", "negatives score lower by this share of the positive's score"),
    ):
        group.add_argument(f"--{name}", type=_number, metavar="X", help=meaning)
    group.add_argument("--sampling", choices=("top", "random"), default="top", help="of candidates (default: top)")
    parser.add_argument("--format", choices=_FORMATS, default=_FORMATS[0], help="of the rows (default: triplet)")
    computed.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="most texts in one forward pass (default: limit only the tokens)",
    )


def run_mine(options: argparse.Namespace) -> None:
    """Find texts that are similar to an anchor without being its positive, and write rows to train on.

    `minisbert train` takes the file as it is. Documents are all positives, and the lines of --corpus. Beside the texts
    only the embeddings of the pairs are held in memory where --corpus-embeddings gives the others.
    """
    from ..mining import mine_hard_negatives

    check_one_process("mine", fix="leave the launcher out")
    output: Path = options.output
    if output.suffix.lower() != ".jsonl":
        raise InputError(f"got --output {output}; expected the name of a .jsonl file")
    check_output_file(output, inputs=(options.data, options.corpus))
    columns = options.columns or [None, None]
    if len(columns) != 2:
        raise InputError(f"got --columns {','.join(columns)}; expected the names of the anchor and the positive")
    found = mine_hard_negatives(
        str(options.data),
        load_model(options),
        anchor_column_name=columns[0],
        positive_column_name=columns[1],
        corpus=options.corpus,
        corpus_embeddings=options.corpus_embeddings,
        range_min=options.range_min,
        range_max=options.range_max,
        max_score=options.max_score,
        min_score=options.min_score,
        absolute_margin=options.absolute_margin,
        relative_margin=options.relative_margin,
        num_negatives=options.num_negatives,
        sampling_strategy=options.sampling,
        output_format=options.format,
        batch_size=options.batch_size,
    )
    _write(found, output)


def _write(columns: dict[str, list[Any]], output: Path) -> None:
    """Write a row in JSON a line."""
    rows = zip(*columns.values(), strict=True)
    count = len(next(iter(columns.values())))
    if not count:
        raise InputError(
            "found too few negatives for any row, so nothing is written; expected some: lower --num-negatives, loosen "
            "the limits of the scores, or add a --corpus"
        )
    with replacing_file(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n")
    sys.stderr.write(f"wrote {output}: {count:,} rows of {', '.join(columns)}\n")


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a number, such as 0.8")
    return value
