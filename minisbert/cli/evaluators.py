"""The evaluator for each kind of data that `minisbert evaluate` reads.

Each function takes the file or folder and the command's options, and returns the evaluator and how many pairs,
triplets, queries or texts it evaluates.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import ConfigError, InputError
from .options import sts_evaluator

if TYPE_CHECKING:
    from ..data.roles import TrainingRows
    from ..data.table import Table
    from ..evaluation import Evaluator

Made: TypeAlias = "tuple[Evaluator, int]"


def _sts(path: Path, options: argparse.Namespace) -> Made:
    evaluator = sts_evaluator(path, options.columns)
    return evaluator, len(evaluator.scores)


def _binary(path: Path, options: argparse.Namespace) -> Made:
    from ..evaluation import BinaryClassificationEvaluator

    rows = _rows(path, options, texts=2, label=True, expected="two texts and a label, 0 or 1")
    first, second = rows.texts.values()
    labels = _zero_or_one(rows)
    return BinaryClassificationEvaluator(first, second, labels, show_progress_bar=True), len(rows)


def _triplets(path: Path, options: argparse.Namespace) -> Made:
    from ..evaluation import TripletEvaluator

    rows = _rows(path, options, texts=3, label=False, expected="anchor, positive and negative")
    return TripletEvaluator(*rows.texts.values(), show_progress_bar=True), len(rows)


def _paraphrases(path: Path, options: argparse.Namespace) -> Made:
    from ..evaluation import ParaphraseMiningEvaluator

    rows = _rows(path, options, texts=2, label=None, expected="two texts, and a label, 0 or 1, or none")
    labels = _zero_or_one(rows) if rows.labels is not None else [1] * len(rows)
    # A text stands for itself; a pair of equal texts is one text, and no pair to find.
    sides = list(zip(*rows.texts.values(), strict=True))
    sentences = {text: text for side in zip(*sides, strict=True) for text in side}
    pairs = [(one, other) for (one, other), label in zip(sides, labels, strict=True) if label and one != other]
    return ParaphraseMiningEvaluator(sentences, pairs, show_progress_bar=True), len(sentences)


def _reranking(path: Path, options: argparse.Namespace) -> Made:
    from ..data.table import as_table, select
    from ..evaluation import RerankingEvaluator

    table = as_table(path)
    if options.columns is not None:
        table = select(table, options.columns)
    samples: list[dict[str, Any]]
    if {"query", "positive", "negative"} <= table.columns.keys():
        keys = ("query", "positive", "negative")
        samples = [
            dict(zip(keys, values, strict=True)) for values in zip(*(table.columns[key] for key in keys), strict=True)
        ]
    else:
        rows = _rows(
            table,
            options,
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


def _retrieval(path: Path, options: argparse.Namespace) -> Made:
    from ..data.retrieval import read_retrieval
    from ..evaluation import InformationRetrievalEvaluator

    if options.columns is not None:
        raise ConfigError("got --columns with --retrieval; expected it with a file of rows: leave it out")
    data = read_retrieval(path, split=options.split, titles=not options.no_titles)
    evaluator = InformationRetrievalEvaluator(data.queries, data.corpus, data.relevant_docs, show_progress_bar=True)
    return evaluator, len(evaluator.queries)


KINDS: dict[str, tuple[Callable[[Path, argparse.Namespace], Made], str, str]] = {
    "sts": (_sts, "FILE", "pairs of texts with a score"),
    "retrieval": (_retrieval, "FOLDER", "corpus.jsonl, queries.jsonl and qrels/test.tsv, as BEIR has them"),
    "triplets": (_triplets, "FILE", "anchor, positive and negative in each row"),
    "binary": (_binary, "FILE", "pairs of texts with a label, 1 where they belong together and 0 elsewhere"),
    "paraphrases": (_paraphrases, "FILE", "pairs of paraphrases to find among all texts; pairs labelled 0 are none"),
    "reranking": (_reranking, "FILE", "query, document and label (relevant above 0), or query, positive, negative"),
}


def _rows(
    data: Path | Table, options: argparse.Namespace, *, texts: int, label: bool | None, expected: str
) -> TrainingRows:
    """Rows with so many texts, with a label or without (None: either)."""
    from ..data.roles import training_rows

    rows = training_rows(data, columns=options.columns)
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
