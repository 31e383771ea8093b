"""The evaluator for each kind of data that `minisbert evaluate` reads.

Each function takes the file or folder and how to read it, and returns the evaluator and how many pairs, triplets,
queries or texts it evaluates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import ConfigError, InputError
from .options import sts_evaluator

if TYPE_CHECKING:
    from ..data.roles import TrainingRows
    from ..data.rows import Table
    from ..evaluation import Evaluator

Made: TypeAlias = "tuple[Evaluator, int]"


@dataclass(frozen=True)
class Reading:
    """How data is read.

    Attributes:
        columns: the columns to use, in order.
        split: of a retrieval folder, which qrels to use; None for test, or the only ones.
        titles: of a retrieval folder, whether the documents' titles are read.
    """

    columns: Sequence[str] | None = None
    split: str | None = None
    titles: bool = True


@dataclass(frozen=True)
class Kind:
    """A kind of data: what makes its evaluator, the name of that class, and what the help says of the data."""

    make: Callable[[Path, Reading], Made]
    evaluator: str
    about: str
    metavar: str = "FILE"


def _sts(path: Path, reading: Reading) -> Made:
    evaluator = sts_evaluator(path, reading.columns)
    return evaluator, len(evaluator.scores)


def _binary(path: Path, reading: Reading) -> Made:
    from ..evaluation import BinaryClassificationEvaluator

    rows = _rows(path, reading, texts=2, label=True, expected="two texts and a label, 0 or 1")
    first, second = rows.texts.values()
    labels = _zero_or_one(rows)
    return BinaryClassificationEvaluator(first, second, labels, show_progress_bar=True), len(rows)


def _triplets(path: Path, reading: Reading) -> Made:
    from ..evaluation import TripletEvaluator

    rows = _rows(path, reading, texts=3, label=False, expected="anchor, positive and negative")
    return TripletEvaluator(*rows.texts.values(), show_progress_bar=True), len(rows)


def _paraphrases(path: Path, reading: Reading) -> Made:
    from ..evaluation import ParaphraseMiningEvaluator

    rows = _rows(path, reading, texts=2, label=None, expected="two texts, and a label, 0 or 1, or none")
    labels = _zero_or_one(rows) if rows.labels is not None else [1] * len(rows)
    # A text stands for itself; a pair of equal texts is one text, and no pair to find.
    sides = list(zip(*rows.texts.values(), strict=True))
    sentences = {text: text for side in zip(*sides, strict=True) for text in side}
    pairs = [(one, other) for (one, other), label in zip(sides, labels, strict=True) if label and one != other]
    return ParaphraseMiningEvaluator(sentences, pairs, show_progress_bar=True), len(sentences)


def _reranking(path: Path, reading: Reading) -> Made:
    from ..data.rows import as_table
    from ..evaluation import RerankingEvaluator

    table = as_table(path)
    if reading.columns is not None:
        table = table.select(reading.columns)
    samples: list[dict[str, Any]]
    if {"query", "positive", "negative"} <= table.columns.keys():
        keys = ("query", "positive", "negative")
        samples = [
            dict(zip(keys, values, strict=True)) for values in zip(*(table.columns[key] for key in keys), strict=True)
        ]
    else:
        rows = _rows(
            table,
            reading,
            texts=2,
            label=True,
            expected="query, document and label in each row, or query, positive, negative",
        )
        grouped: dict[str, dict[str, Any]] = {}
        for query, document, label in zip(*rows.texts.values(), rows.labels or (), strict=True):
            sample = grouped.setdefault(query, {"query": query, "positive": [], "negative": []})
            sample["positive" if label > 0 else "negative"].append(document)
        samples = list(grouped.values())
    evaluator = RerankingEvaluator(samples, show_progress_bar=True)
    return evaluator, len(evaluator.samples)


def _retrieval(path: Path, reading: Reading) -> Made:
    from ..data.retrieval import read_retrieval
    from ..evaluation import InformationRetrievalEvaluator

    if reading.columns is not None:
        raise ConfigError("got --columns with --retrieval; expected it with a file of rows: leave it out")
    data = read_retrieval(path, split=reading.split, titles=reading.titles)
    evaluator = InformationRetrievalEvaluator(data.queries, data.corpus, data.relevant_docs, show_progress_bar=True)
    return evaluator, len(evaluator.queries)


KINDS = {
    "sts": Kind(_sts, "EmbeddingSimilarityEvaluator", "pairs of texts with a score"),
    "retrieval": Kind(
        _retrieval,
        "InformationRetrievalEvaluator",
        "corpus.jsonl, queries.jsonl and qrels/test.tsv, as BEIR has them",
        metavar="FOLDER",
    ),
    "triplets": Kind(_triplets, "TripletEvaluator", "anchor, positive and negative in each row"),
    "binary": Kind(
        _binary,
        "BinaryClassificationEvaluator",
        "pairs of texts with a label, 1 where they belong together and 0 elsewhere",
    ),
    "paraphrases": Kind(
        _paraphrases,
        "ParaphraseMiningEvaluator",
        "pairs of paraphrases to find among all texts; pairs labelled 0 are none",
    ),
    "reranking": Kind(
        _reranking, "RerankingEvaluator", "query, document and label (relevant above 0), or query, positive, negative"
    ),
}


def _rows(data: Path | Table, reading: Reading, *, texts: int, label: bool | None, expected: str) -> TrainingRows:
    """Rows with so many texts, with a label or without (None: either)."""
    from ..data.roles import training_rows

    rows = training_rows(data, columns=reading.columns)
    if len(rows.texts) != texts or (label is not None and (rows.labels is not None) != label):
        raise InputError(
            f"{rows.source} has the text columns {list(rows.texts)} and {'a' if rows.labels else 'no'} label; expected "
            f"{expected}: name the columns to use with --columns"
        )
    return rows


def _zero_or_one(rows: TrainingRows) -> list[int]:
    labels = rows.labels or []
    for row, label in enumerate(labels):
        if label not in (0, 1):
            raise InputError(f"row {row} of {rows.source}: got the label {label:g}; expected 0 or 1: mend the row")
    return [int(label) for label in labels]
