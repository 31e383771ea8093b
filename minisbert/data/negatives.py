"""Format mined positives and negatives as columns of rows to train on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import ConfigError


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
