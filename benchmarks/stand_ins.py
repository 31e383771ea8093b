"""Real rows of the shapes that the five recipes were made for: what each trains on, and what its result is scored on.

Their own data is not published. FOLDER (see reproduce.py) holds the sets that stand in for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minisbert.data.roles import TrainingRows, training_rows

SEED = 42
HELD_OUT = 500
SMALL = 300  # rows for the recipes whose own were 74 and 47


@dataclass(frozen=True)
class StandIn:
    """Rows to train on, and pairs with scores, or queries with their documents, to evaluate on.

    Attributes:
        source: where they come from, in words.
        columns: to train on: sentence_0, sentence_1 and, where the recipe has one, label.
        pairs: (texts, texts, scores) to evaluate on, or None.
        retrieval: (queries, corpus, relevant documents) to evaluate on, or None.
    """

    source: str
    columns: dict[str, list[Any]]
    pairs: tuple[list[str], list[str], list[float]] | None = None
    retrieval: tuple[dict[str, str], dict[str, str], dict[str, set[str]]] | None = None


def graded_answers(data: Path) -> StandIn:
    """Short answers graded from 0 to 5, for card 000."""
    columns = ("reference_answer", "student_answer", "score_0_5")
    rows = training_rows(data / "mohler/mohler.tsv.gz", columns=columns, scale=(0, 5))
    train, dev = _held_out(rows)
    return StandIn("mohler, graded answers", _columns(_some(train)), pairs=_pairs(dev))


def right_answers(data: Path) -> StandIn:
    """Answers that are right or wrong, for card 001."""
    columns = ("reference_answer", "student_answer", "label")
    folder = data / "semeval2013_task7"
    train = _some(training_rows(folder / "train.tsv.gz", columns=columns))
    dev = training_rows(folder / "test-unseen-answers.tsv.gz", columns=columns)
    return StandIn("semeval2013, right and wrong answers", _columns(train), pairs=_pairs(dev))


def duplicate_questions(data: Path) -> StandIn:
    """Pairs of equal questions, and random pairs so many that the mean label is that of card 002, 0.52."""
    parts = []
    for name in ("train", "dev"):
        rows = training_rows(data / f"quora/quora_{name}.tsv.gz")
        kept = [row for row, label in enumerate(rows.labels or []) if label == 1]
        parts.append(_repaired(rows.subset(kept), share=0.52))
    train, dev = parts
    dev = dev.subset(range(0, len(dev), max(1, len(dev) // (2 * HELD_OUT))))
    return StandIn("quora duplicates, re-paired at random", _columns(train), pairs=_pairs(dev))


def titles(data: Path) -> StandIn:
    """Titles with passages of their articles, for card 003."""
    rows = training_rows(data / "wiki_title/wiki_title_train.tsv.gz", columns=("title", "passage"))
    train, dev = _held_out(rows)
    return StandIn("wiki_title, titles and passages", _columns(train), retrieval=_retrieval(dev))


def questions(data: Path) -> StandIn:
    """Questions with passages that answer them, for card 004."""
    medical = training_rows(data / "medquad/medquad.tsv.gz", columns=("question", "answer"))
    web = training_rows(data / "msmarco_mini/msmarco_pairs_visible.tsv.gz", columns=("query", "passage", "grade"))
    columns = [[*a, *b] for a, b in zip(medical.texts.values(), web.texts.values(), strict=True)]
    train, dev = _held_out(TrainingRows(dict(zip("ab", columns, strict=True)), None, None, "medquad and msmarco_mini"))
    return StandIn("medquad and msmarco_mini, questions and answers", _columns(train), retrieval=_retrieval(dev))


STAND_INS: dict[str, Callable[[Path], StandIn]] = {
    "000-answers-74": graded_answers,
    "001-ml-answers-47": right_answers,
    "002-stackexchange-490k": duplicate_questions,
    "003-wikipedia-29k": titles,
    "004-msmarco-533k": questions,
}


def _columns(rows: TrainingRows) -> dict[str, list[Any]]:
    """In an order drawn once, as a shuffling loader would give them."""
    order = np.random.default_rng(SEED).permutation(len(rows)).tolist()
    mixed = rows.subset(order)
    columns: dict[str, list[Any]] = {f"sentence_{place}": texts for place, texts in enumerate(mixed.texts.values())}
    return columns if mixed.labels is None else {**columns, "label": mixed.labels}


def _pairs(rows: TrainingRows) -> tuple[list[str], list[str], list[float]]:
    first, second = rows.texts.values()
    return first, second, rows.labels or []


def _retrieval(rows: TrainingRows) -> tuple[dict[str, str], dict[str, str], dict[str, set[str]]]:
    """Each different anchor is a query; every passage that stands beside it is relevant."""
    anchors, passages = rows.texts.values()
    corpus = {passage: passage for passage in passages}
    relevant: dict[str, set[str]] = {}
    for anchor, passage in zip(anchors, passages, strict=True):
        relevant.setdefault(anchor, set()).add(passage)
    return {anchor: anchor for anchor in relevant}, corpus, relevant


def _held_out(rows: TrainingRows) -> tuple[TrainingRows, TrainingRows]:
    order = np.random.default_rng(SEED).permutation(len(rows)).tolist()
    count = min(HELD_OUT, len(rows) // 10)
    return rows.subset(sorted(order[count:])), rows.subset(sorted(order[:count]))


def _repaired(rows: TrainingRows, *, share: float) -> TrainingRows:
    """Positive rows and random pairs of their texts; `share` of all rows are positive."""
    first, second = rows.texts.values()
    draw = np.random.default_rng(SEED)
    count = round(len(rows) * (1 - share) / share)
    others = [
        (first[row], second[(row + draw.integers(1, len(rows))) % len(rows)])
        for row in draw.permutation(len(rows))[:count]
    ]
    texts = {"a": [*first, *(a for a, _ in others)], "b": [*second, *(b for _, b in others)]}
    return TrainingRows(texts, [1.0] * len(rows) + [0.0] * count, "label", rows.source)


def _some(rows: TrainingRows) -> TrainingRows:
    return rows.subset(np.random.default_rng(SEED).permutation(len(rows))[:SMALL].tolist())
