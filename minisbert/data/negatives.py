"""Pairs to mine negatives for, and what is mined as columns of rows to train on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError, InputError
from ..text import check_texts


@dataclass(frozen=True)
class Pairs:
    """Pairs of anchors and positives, each anchor and each document once.

    Attributes:
        names: of the two columns.
        anchors: texts, in the order of their first row.
        documents: the corpus and then the positives.
        corpus_size: rows of the corpus, in which a text may be repeated.
        corpus_rows: for each document of the corpus its first row there: int64.
        positives: for each anchor the indices of its positives among the documents.
        most_positives: largest number of rows of one anchor.
    """

    names: tuple[str, str]
    anchors: list[str]
    documents: list[str]
    corpus_size: int
    corpus_rows: NDArray[np.int64]
    positives: list[list[int]]
    most_positives: int

    @classmethod
    def of(
        cls, dataset: Any, anchor: str | None, positive: str | None, corpus: Sequence[str] | str | PathLike[str] | None
    ) -> Pairs:
        """Read the columns of pairs, by default the first two, and a corpus of texts or a file of them.

        Raises:
            InputError: the columns are missing or hold other values than texts.
            InputTypeError: the corpus holds other values than texts.
        """
        from .roles import column_texts  # search alone should not load what reads files
        from .rows import as_table

        table = as_table(dataset)
        if len(table.columns) < 2:
            raise InputError(f"{table.source} has the columns {list(table.columns)}; expected anchors and positives")
        first, second = islice(table.columns, 2)
        table = table.select([first if anchor is None else anchor, second if positive is None else positive])
        names = first, second = tuple(table.columns)
        texts, positives = (column_texts(table, name) for name in names)
        if isinstance(corpus, (str, PathLike)):
            corpus = _texts_of(Path(corpus))
        corpus = check_texts([] if corpus is None else corpus, what="corpus")
        row_of: dict[str, int] = {}
        for row, text in enumerate(corpus):
            row_of.setdefault(text, row)
        rows = np.fromiter(row_of.values(), np.int64, len(row_of))
        documents = list(dict.fromkeys([*row_of, *positives]))
        index_of = {document: index for index, document in enumerate(documents)}
        indices: dict[str, dict[int, None]] = {text: {} for text in texts}
        for text, document in zip(texts, positives, strict=True):
            indices[text][index_of[document]] = None
        most = max(Counter(texts).values())
        own = [list(found) for found in indices.values()]
        return cls((first, second), list(indices), documents, len(corpus), rows, own, most)

    @cached_property
    def indices(self) -> Tensor:
        """Row of the anchor and index of the document of each pair: int64, (pairs, 2)."""
        return torch.tensor([(row, index) for row, own in enumerate(self.positives) for index in own])

    def by_anchor(self, values: Tensor) -> list[list[float]]:
        """Split one value for each pair into a list for each anchor."""
        return [own.tolist() for own in torch.split(values, [len(own) for own in self.positives])]


def _texts_of(path: Path) -> list[str]:
    """Read a corpus: the lines of a file, or of one with columns that called text or the only one."""
    from .readers import has_columns, read_lines
    from .roles import column_texts
    from .rows import as_table

    if not has_columns(path):
        return read_lines(path)
    table = as_table(path)
    names = ["text"] if "text" in table.columns else list(table.columns)
    if len(names) > 1:
        raise InputError(f"{path} has the columns {names}; expected one, or one called text: rename it, or pass a list")
    return column_texts(table, names[0])


class Mined(NamedTuple):
    """The texts mined for one anchor, with their scores."""

    anchor: str
    positives: list[tuple[str, float]]
    negatives: list[tuple[str, float]]


class _Row(NamedTuple):
    texts: list[Any]
    labels: Any
    scores: Any


@dataclass(frozen=True)
class Layout:
    """An output format.

    Attributes:
        rows: makes the rows of one anchor, given the requested number of negatives.
        negatives: makes the names of the columns of negatives, given their requested number.
        labels: name of the column of labels, or None for a format without labels.
        scores: name of the column of scores.
    """

    rows: Callable[[Mined, int], Iterator[_Row]]
    negatives: Callable[[int], list[str]]
    labels: str | None
    scores: str

    def titles(self, names: Sequence[str], num_negatives: int, *, with_scores: bool) -> list[str]:
        """Return the names of all columns: anchors, positives, negatives, and labels or scores.

        Raises:
            ConfigError: a name is repeated.
        """
        last = self.scores if with_scores else self.labels
        titles = [*names, *self.negatives(num_negatives), *([last] if last else [])]
        repeated = [title for title, count in Counter(titles).items() if count > 1]
        if repeated:
            raise ConfigError(f"got a column called {repeated[0]}, as the result has; expected another name: rename it")
        return titles

    def columns(
        self, mined: Sequence[Mined], titles: Sequence[str], num_negatives: int, *, with_scores: bool
    ) -> dict[str, list[Any]]:
        """Return the columns of all rows by the names in `titles`."""
        rows = [row for one in mined for row in self.rows(one, num_negatives)]
        values = [[*row.texts, row.scores if with_scores else row.labels] for row in rows]
        return {title: [row[index] for row in values] for index, title in enumerate(titles)}


def _triplets(mined: Mined, _: int) -> Iterator[_Row]:
    for positive, score in mined.positives:
        for negative, negative_score in mined.negatives:
            yield _Row([mined.anchor, positive, negative], None, [score, negative_score])


def _tuples(mined: Mined, num_negatives: int) -> Iterator[_Row]:
    if len(mined.negatives) == num_negatives:
        for row in _labeled_lists(mined, num_negatives):
            yield _Row([mined.anchor, *row.texts[1]], None, row.scores)


def _labeled_pairs(mined: Mined, _: int) -> Iterator[_Row]:
    for label, documents in ((1.0, mined.positives), (0.0, mined.negatives)):
        for document, score in documents:
            yield _Row([mined.anchor, document], label, score)


def _labeled_lists(mined: Mined, _: int) -> Iterator[_Row]:
    if mined.negatives:
        for positive in mined.positives:
            documents, scores = zip(positive, *mined.negatives, strict=True)
            yield _Row([mined.anchor, list(documents)], [1.0] + [0.0] * len(mined.negatives), list(scores))


_LAYOUTS: Mapping[str, Layout] = {
    "triplet": Layout(_triplets, lambda _: ["negative"], None, "scores"),
    "n-tuple": Layout(_tuples, lambda count: [f"negative_{i + 1}" for i in range(count)], None, "scores"),
    "labeled-pair": Layout(_labeled_pairs, lambda _: [], "label", "score"),
    "labeled-list": Layout(_labeled_lists, lambda _: [], "labels", "scores"),
}


def layout(output_format: str | None, *, include_positives: bool) -> Layout:
    """Return an output format by name; None is "n-tuple" if positives are candidates too, else "triplet".

    Raises:
        ConfigError: the name is unknown, or the format cannot hold positives among the candidates.
    """
    name = output_format if output_format is not None else ("n-tuple" if include_positives else "triplet")
    if not isinstance(name, str) or name not in _LAYOUTS:
        raise ConfigError(f"got output_format {name!r}; expected one of {', '.join(_LAYOUTS)}: pass one of them")
    if include_positives and name != "n-tuple":
        raise ConfigError(
            f"got include_positives with output_format {name!r}; expected 'n-tuple', which keeps the ranking: leave "
            f"output_format out"
        )
    return _LAYOUTS[name]
