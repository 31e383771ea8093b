"""Metrics of scores that should be higher for relevant rows than for others.

Rows with equal scores are treated alike: they are above or below a threshold together, and share their ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Cuts:
    """The places for a threshold among scores: after each run of equal ones, from the best score down.

    Attributes:
        scores: all scores, best first: (n,).
        taken: rows above each cut: int64, (cuts,).
        relevant: relevant rows above each cut: int64, (cuts,).
    """

    scores: NDArray[Any]
    taken: NDArray[np.int64]
    relevant: NDArray[np.int64]

    @classmethod
    def of(cls, scores: NDArray[Any], relevant: NDArray[Any]) -> Cuts:
        """Find the cuts among scores (larger is better) of rows that are relevant or not: (n,) and bool (n,)."""
        order = np.argsort(-scores, kind="stable")
        scores = scores[order]
        last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
        return cls(scores, last + 1, np.cumsum(relevant[order], dtype=np.int64)[last])

    def precision(self) -> NDArray[np.float64]:
        """Share of the rows above each cut that are relevant: (cuts,)."""
        return self.relevant / self.taken

    def f1(self, total: int) -> NDArray[np.float64]:
        """F1 at each cut, where `total` rows are relevant: (cuts,)."""
        precision, recall = self.precision(), self.relevant / total
        both = precision + recall
        return 2 * precision * recall / np.where(both, both, 1)

    def threshold(self, cut: int) -> Any:
        """The middle between the scores on both sides of a cut, in their own dtype; the last score at the end."""
        above = self.scores[self.taken[cut] - 1]
        if self.taken[cut] == len(self.scores):
            return above
        below = self.scores[self.taken[cut]]
        middle = (above + below) / 2
        return above if middle == below else middle  # neighbouring floats have nothing between them


def average_precision(cuts: Cuts) -> float:
    """Precision at each cut, weighted by the recall gained there."""
    gained = np.diff(cuts.relevant / cuts.relevant[-1], prepend=0)
    return float((gained * cuts.precision())[::-1].sum())  # from the last: the reference's order of rounding


def matthews_correlation(cuts: Cuts, cut: int) -> float:
    """Correlation of being above a cut with being relevant; 0 if one of them is the same for all rows."""
    rows, relevant = len(cuts.scores), int(cuts.relevant[-1])
    taken, hits = int(cuts.taken[cut]), int(cuts.relevant[cut])
    spread = float(taken * (rows - taken)) * float(relevant * (rows - relevant))
    return float((hits * rows - taken * relevant) / np.sqrt(spread)) if spread else 0.0


def ndcg(scores: NDArray[Any], relevant: NDArray[np.bool_], k: int) -> float:
    """Discounted gain of the first k ranks, relative to the best order; (n,) and (n,), at least one relevant.

    Rows with equal scores share the gain of their ranks evenly.
    """
    discounts = 1 / (np.log(np.arange(len(scores)) + 2) / np.log(2))
    discounts[k:] = 0
    cuts = Cuts.of(scores, relevant)
    sizes = np.diff(cuts.taken, prepend=0)
    shares = np.diff(np.cumsum(discounts)[cuts.taken - 1], prepend=0)
    gain = (np.diff(cuts.relevant, prepend=0) / sizes * shares).sum()
    return float(gain / discounts.dot(np.sort(relevant)[::-1].astype(np.float64)))


def reciprocal_rank(ranked: NDArray[np.bool_], k: int) -> float:
    """One over the rank of the first relevant row among the first k, 0 without one; bool (n,), best first."""
    hits = np.flatnonzero(ranked[:k])
    return float(1 / (hits[0] + 1)) if len(hits) else 0.0


def mean(values: Sequence[float] | NDArray[Any]) -> float:
    """The mean, as a plain float."""
    return float(np.mean(values))
