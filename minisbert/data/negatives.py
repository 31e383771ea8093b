"""What was mined for anchors, as columns of rows to train on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import ConfigError


class Mined(NamedTuple):
    """What was found for one anchor: texts with their scores."""

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
        rows: of what was found for one anchor, when so many negatives were asked for.
        negatives: names of the columns of negatives, when so many were asked for.
        labels: name of the column of labels, or None for a format without.
        scores: name of the column of scores.
    """

    rows: Callable[[Mined, int], Iterator[_Row]]
    negatives: Callable[[int], list[str]]
    labels: str | None
    scores: str

    def titles(self, names: Sequence[str], num_negatives: int, *, with_scores: bool) -> list[str]:
        """Names of all columns: anchors, positives, negatives, and labels or scores.

        Raises:
            ConfigError: two of them are the same.
        """
        last = self.scores if with_scores else self.labels
        titles = [*names, *self.negatives(num_negatives), *([last] if last else [])]
        twice = [title for title, times in Counter(titles).items() if times > 1]
        if twice:
            raise ConfigError(
                f"got a column called {twice[0]}, as one of the result is; expected another name: rename it"
            )
        return titles

    def columns(
        self, mined: Sequence[Mined], titles: Sequence[str], num_negatives: int, *, with_scores: bool
    ) -> dict[str, list[Any]]:
        """The columns of all rows, under `titles`."""
        rows = [row for found in mined for row in self.rows(found, num_negatives)]
        values = [[*row.texts, row.scores if with_scores else row.labels] for row in rows]
        return {title: [row[place] for row in values] for place, title in enumerate(titles)}


def _triplets(found: Mined, _: int) -> Iterator[_Row]:
    for positive, score in found.positives:
        for negative, negative_score in found.negatives:
            yield _Row([found.anchor, positive, negative], None, [score, negative_score])


def _tuples(found: Mined, num_negatives: int) -> Iterator[_Row]:
    if len(found.negatives) == num_negatives:
        for row in _labeled_lists(found, num_negatives):
            yield _Row([found.anchor, *row.texts[1]], None, row.scores)


def _labeled_pairs(found: Mined, _: int) -> Iterator[_Row]:
    for label, documents in ((1.0, found.positives), (0.0, found.negatives)):
        for document, score in documents:
            yield _Row([found.anchor, document], label, score)


def _labeled_lists(found: Mined, _: int) -> Iterator[_Row]:
    if found.negatives:
        for positive in found.positives:
            documents, scores = zip(positive, *found.negatives, strict=True)
            yield _Row([found.anchor, list(documents)], [1.0] + [0.0] * len(found.negatives), list(scores))


_LAYOUTS: Mapping[str, Layout] = {
    "triplet": Layout(_triplets, lambda _: ["negative"], None, "scores"),
    "n-tuple": Layout(_tuples, lambda count: [f"negative_{i + 1}" for i in range(count)], None, "scores"),
    "labeled-pair": Layout(_labeled_pairs, lambda _: [], "label", "score"),
    "labeled-list": Layout(_labeled_lists, lambda _: [], "labels", "scores"),
}


def layout(output_format: str | None, *, include_positives: bool) -> Layout:
    """The format of that name; None stands for "n-tuple" if positives are candidates too, else for "triplet".

    Raises:
        ConfigError: there is none of that name, or it cannot hold positives among the candidates.
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
