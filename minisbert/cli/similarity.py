"""`minisbert similarity`: how alike some texts are."""

from __future__ import annotations

import argparse

from ..errors import InputError
from .options import Subparsers, add_command, add_model_options, load_model, shortened, table


def add(commands: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "similarity",
        run,
        about="Print the similarity of every two of some texts.",
        example='minisbert similarity all-MiniLM-L6-v2 "a cat sleeps" "a kitten naps" "stocks fell"',
    )
    parser.add_argument("model", help="model folder or name")
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="two texts or more")
    add_model_options(parser)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    texts: list[str] = options.texts
    if len(texts) < 2:
        raise InputError("got 1 text; expected at least two to compare")
    model = load_model(options, options.model)
    embeddings = model.encode(texts)
    scores = model.similarity(embeddings, embeddings).tolist()
    header = ["", *(f"[{number}]" for number in range(1, len(texts) + 1))]
    rows = [
        [f"[{number}] {shortened(text)}", *(f"{score:.4f}" for score in row)]
        for number, (text, row) in enumerate(zip(texts, scores, strict=True), start=1)
    ]
    print(table([header, *rows]))
