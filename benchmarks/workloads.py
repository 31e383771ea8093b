"""Texts to measure on, by length class: real ones from a folder of data, or made up from the packaged answers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from minisbert.data.packaged import GRADED_ANSWERS_HELDOUT, GRADED_ANSWERS_TRAIN
from minisbert.data.readers import read_columns

EDGES = (8, 16, 32, 64, 128, 192, 256)  # of the histogram: tokens of a text, at most
SEED = 0
SOURCES = {
    "titles": ("stackoverflow_titles/so_titles.tsv.gz", "title"),
    "paragraphs": ("wiki_title/wiki_title_train.tsv.gz", "passage"),
    "long": ("pubmedqa/pubmedqa.tsv.gz", "context"),
}
MIX = {"titles": 3, "paragraphs": 2, "long": 1}  # parts of the class "mixed"
CLASSES = (*SOURCES, "mixed")
_MANY = ("wordnet/wordnet_term_definition.tsv.gz", "definition")
_QUESTIONS = (
    ("medquad/medquad.tsv.gz", "question", "answer"),
    ("msmarco_mini/msmarco_pairs_visible.tsv.gz", "query", "passage"),
)
_SENTENCES = {"titles": 1, "paragraphs": 3, "long": 13}  # of the packaged answers, in a text that is made up
_SYNTHETIC = 2_000


def described(data: Path | None) -> str:
    """Where the texts come from, for the result."""
    return "real texts" if data is not None else "synthetic: sentences of the packaged answers, put together at random"


def texts(data: Path | None, kind: str, count: int | None = None) -> list[str]:
    """`count` different texts of a length class (all there are, if fewer), always the same ones."""
    found = _texts(data, kind)
    return list(found if count is None else found[:count])


def repeated(data: Path | None, kind: str, count: int) -> list[str]:
    """`count` texts of a length class, repeated in their order where the source has fewer."""
    return list(islice(cycle(_texts(data, kind)), count))


def many(data: Path | None, count: int) -> list[str]:
    """`count` short texts, repeated where the source has fewer."""
    source = _column(data, *_MANY) if data is not None else _made_up("titles")
    return list(islice(cycle(source), count))


def rows(data: Path | None, count: int) -> dict[str, list[str]]:
    """Columns of queries with passages of 60 to 80 tokens that answer them; no text twice."""
    if data is None:
        pairs = [
            (first, f"{first} {more}") for first, more in zip(_made_up("titles"), _made_up("paragraphs"), strict=True)
        ]
    else:
        pairs = [
            pair
            for file, *names in _QUESTIONS
            for pair in zip(*(_column(data, file, name) for name in names), strict=True)
        ]
    random.Random(SEED).shuffle(pairs)
    queries: dict[str, str] = {}
    seen: set[str] = set()
    for query, passage in pairs:
        short = " ".join(passage.split()[:48])
        if query not in queries and short not in seen:
            queries[query] = short
            seen.add(short)
        if len(queries) == count:
            break
    return {"query": list(queries), "passage": list(queries.values())}


def short_rows(data: Path | None, count: int) -> dict[str, list[str]]:
    """Columns of `count` terms and definitions, which together are shorter than other pairs; repeated if too few."""
    if data is None:
        return repeated_rows(count, rows(None, count))
    file, definition = _MANY
    return repeated_rows(count, {name: _column(data, file, name) for name in ("term", definition)})


def repeated_rows(count: int, columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Columns of `count` rows, repeated in their order where there are fewer."""
    return {name: list(islice(cycle(values), count)) for name, values in columns.items()}


def rated_titles(data: Path | None, count: int) -> dict[str, list[str] | list[float]]:
    """Columns of two titles and a label: 1 where they have the same tag, else 0."""
    if data is None:
        titles = list(islice(cycle(_texts(data, "titles")), 2 * count))
        tags = [str(len(title) % 2) for title in titles]
    else:
        file = SOURCES["titles"][0]
        pairs = list(zip(_column(data, file, "title"), _column(data, file, "tag_id"), strict=True))
        random.Random(SEED).shuffle(pairs)
        titles, tags = [title for title, _ in pairs[: 2 * count]], [tag for _, tag in pairs[: 2 * count]]
    half = len(titles) // 2
    labels = [float(first == second) for first, second in zip(tags[:half], tags[half : 2 * half], strict=True)]
    return {"first": titles[:half], "second": titles[half : 2 * half], "label": labels}


def histogram(lengths: Sequence[int]) -> dict[str, int]:
    """How many texts have how many tokens: counts by range, such as "9-16"."""
    counts = {f"{low + 1}-{high}": 0 for low, high in zip((0, *EDGES[:-1]), EDGES, strict=True)}
    counts[f"{EDGES[-1] + 1}-"] = 0
    for length in lengths:
        place = sum(length > edge for edge in EDGES)
        counts[list(counts)[place]] += 1
    return {name: count for name, count in counts.items() if count}


@cache
def _texts(data: Path | None, kind: str) -> tuple[str, ...]:
    if kind == "mixed":
        return _mixed({name: _texts(data, name) for name in MIX})
    found = _made_up(kind) if data is None else _column(data, *SOURCES[kind])
    different = list(dict.fromkeys(found))
    random.Random(SEED).shuffle(different)
    return tuple(different)


def _mixed(parts: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Parts in their proportions, evenly interleaved, so that every beginning has the same mix."""
    turns = [name for name, share in MIX.items() for _ in range(share)]
    streams = {name: iter(found) for name, found in parts.items()}
    rounds = min(len(found) // MIX[name] for name, found in parts.items())
    return tuple(next(streams[name]) for _ in range(rounds) for name in turns)


def _column(data: Path | None, file: str, name: str) -> list[str]:
    assert data is not None
    columns = read_columns(data / file)[0]
    return [str(value) for value in columns[name]]


def _made_up(kind: str) -> list[str]:
    sentences: dict[str, None] = {}
    for file in (GRADED_ANSWERS_TRAIN, GRADED_ANSWERS_HELDOUT):
        columns = read_columns(file)[0]
        for name in ("question", "answer"):
            sentences.update(dict.fromkeys(columns[name]))
    draw = random.Random(SEED)
    known = list(sentences)
    return [" ".join(draw.sample(known, _SENTENCES[kind])) for _ in range(_SYNTHETIC)]
