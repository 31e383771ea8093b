"""Targets that hold texts: model cards, recipes, and rows of data."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

from minisbert.card import read_card, render
from minisbert.cli.inspect import card_summary
from minisbert.data.readers import read_lines
from minisbert.data.retrieval import read_retrieval
from minisbert.data.roles import training_rows
from minisbert.errors import MinisbertError
from minisbert.recipes import parse_recipe, recipe_of

from .changes import Mutation, change_bytes, change_lines
from .harness import Target
from .trees import change_json

ROOT = Path(__file__).resolve().parents[3]


def _cards() -> list[bytes]:
    own = [ROOT / "tests" / "helpers" / "card_small.md", *sorted((ROOT.parent / "shared" / "cards").glob("*.md"))]
    return [path.read_bytes() for path in own]


def feed_card(folder: Path, content: bytes) -> None:
    path = folder / "README.md"
    path.write_bytes(content)
    facts = read_card(path)
    render(facts)
    card_summary(facts)
    recipe_of(facts)


def _card_seeds() -> list[bytes]:
    """The cards that tell of a training that can be followed."""
    with tempfile.TemporaryDirectory() as folder:
        return [card for card in _cards() if _verdict_of_card(Path(folder), card)]


def _verdict_of_card(folder: Path, card: bytes) -> bool:
    try:
        feed_card(folder, card)
    except MinisbertError:
        return False
    return True


def _recipes() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "benchmarks" / "recipes").glob("*.yaml"))]


def _feed_recipe(folder: Path, content: bytes) -> None:
    parse_recipe(content.decode("utf-8", "replace"))


# ---- data -----------------------------------------------------------------------------------------------------------

_ROWS = [
    {"sentence1": "a cat", "sentence2": "ein Kätzchen 😀", "score": 0.5},
    {"sentence1": 'with "quotes", and commas', "sentence2": "", "score": 1},
    {"sentence1": "我们", "sentence2": "x" * 200, "score": -0.25},
]


def _table(delimiter: str) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL)
    rows = [{**row, "sentence1": row["sentence1"].replace('"', "")} for row in _ROWS] if delimiter == "\t" else _ROWS
    writer.writerows([list(_ROWS[0]), *(list(row.values()) for row in rows)])
    return file.getvalue().encode("utf-8")


def _jsonl() -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in _ROWS)


def _change_jsonl(content: bytes, draw: random.Random) -> bytes:
    """A value of one row changed, or the text."""
    if draw.random() < 0.5:
        return change_lines(content, draw)
    lines = content.splitlines()
    place = draw.randrange(len(lines))
    lines[place] = change_json(lines[place], draw)
    return b"\n".join(lines)


def _data(name: str, seeds: Callable[[], bytes], change: Mutation = change_lines) -> Target:
    def feed(folder: Path, content: bytes) -> None:
        (folder / name).write_bytes(content)
        training_rows(folder / name, columns=None if len(content) % 2 else ("sentence1", "sentence2", "score"))

    return Target(lambda: [seeds()], change, feed)


def _packed(content: bytes, draw: random.Random) -> bytes:
    """Compressed after or before the change."""
    if draw.random() < 0.5:
        return gzip.compress(change_lines(gzip.decompress(content), draw), compresslevel=1)
    return change_bytes(content, draw)


def _feed_lines(folder: Path, content: bytes) -> None:
    (folder / "texts.txt").write_bytes(content)
    read_lines(folder / "texts.txt")


def _retrieval(folder: Path) -> None:
    (folder / "qrels").mkdir()
    (folder / "queries.jsonl").write_text('{"_id": "1", "text": "one"}\n{"_id": "2", "text": "two"}\n')
    (folder / "corpus.jsonl").write_text(
        '{"_id": "a", "title": "t", "text": "one"}\n{"_id": "b", "title": "", "text": "x"}\n'
    )
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\ta\t1\n2\tb\t0\n")


def _in_retrieval(name: str, change: Mutation) -> Target:
    def seeds() -> list[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            _retrieval(Path(folder))
            return [(Path(folder) / name).read_bytes()]

    def feed(folder: Path, content: bytes) -> None:
        (folder / name).write_bytes(content)
        read_retrieval(folder)

    return Target(seeds, change, feed, _retrieval)


TARGETS: dict[str, Target] = {
    "cards": Target(_card_seeds, change_lines, feed_card),
    "recipes": Target(_recipes, change_lines, _feed_recipe),
    "tsv": _data("rows.tsv", lambda: _table("\t")),
    "csv": _data("rows.csv", lambda: _table(",")),
    "jsonl": _data("rows.jsonl", _jsonl, _change_jsonl),
    "tsv.gz": _data("rows.tsv.gz", lambda: gzip.compress(_table("\t")), _packed),
    "texts": Target(lambda: [_table("\t")], change_lines, _feed_lines),
    "queries": _in_retrieval("queries.jsonl", _change_jsonl),
    "qrels": _in_retrieval("qrels/test.tsv", change_lines),
}
