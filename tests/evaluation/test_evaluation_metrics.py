"""The metrics are what their definitions say, however scores are tied."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisbert.evaluation.metrics import Cuts, average_precision, matthews_correlation, ndcg, reciprocal_rank

ROWS = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=7).filter(
    lambda rows: any(relevant for _, relevant in rows)
)


def arrays(rows: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    scores, relevant = zip(*rows, strict=True)
    return np.array(scores, np.float64), np.array(relevant)


@given(ROWS)
def test_cuts_are_the_thresholds_that_differ(rows: list[tuple[int, bool]]) -> None:
    scores, relevant = arrays(rows)
    cuts = Cuts.of(scores, relevant)
    total = int(relevant.sum())
    levels = sorted(set(scores), reverse=True)
    assert len(cuts.taken) == len(levels)
    for cut, level in enumerate(levels):
        above = scores >= level
        hits = int((above & relevant).sum())
        assert cuts.taken[cut] == above.sum()
        assert cuts.relevant[cut] == hits
        assert cuts.precision()[cut] == hits / above.sum()
        assert cuts.f1(total)[cut] == pytest.approx(2 * hits / (above.sum() + total))
        threshold = cuts.threshold(cut)
        assert np.array_equal(scores >= threshold, above)
        if cut + 1 < len(levels):
            assert threshold == (level + levels[cut + 1]) / 2
        misses, false = int((~above & relevant).sum()), int((above & ~relevant).sum())
        rest = len(rows) - hits - misses - false
        spread = (hits + false) * (hits + misses) * (rest + false) * (rest + misses)
        expected = (hits * rest - false * misses) / math.sqrt(spread) if spread else 0.0
        assert matthews_correlation(cuts, cut) == pytest.approx(expected)


@given(ROWS)
def test_average_precision_is_a_sum_over_recall(rows: list[tuple[int, bool]]) -> None:
    scores, relevant = arrays(rows)
    expected = 0.0
    for level in set(scores):
        above, here = scores >= level, scores == level
        expected += (above & relevant).sum() / above.sum() * (here & relevant).sum() / relevant.sum()
    assert average_precision(Cuts.of(scores, relevant)) == pytest.approx(expected)


@given(rows=ROWS.filter(lambda rows: len(rows) <= 5), k=st.integers(1, 6))
def test_ndcg_is_the_mean_over_all_orders_of_equals(rows: list[tuple[int, bool]], k: int) -> None:
    scores, relevant = arrays(rows)

    def gain(order: tuple[int, ...]) -> float:
        return sum(relevant[row] / math.log2(place + 2) for place, row in enumerate(order[:k]))

    everything = list(permutations(range(len(rows))))
    sorted_ones = [order for order in everything if list(scores[list(order)]) == sorted(scores, reverse=True)]
    expected = np.mean([gain(order) for order in sorted_ones]) / max(gain(order) for order in everything)
    assert ndcg(scores, relevant, k) == pytest.approx(expected)


def test_thresholds_keep_neighbouring_floats_apart() -> None:
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    cuts = Cuts.of(np.array([low, high]), np.array([False, True]))
    assert cuts.threshold(0) == high
    assert cuts.threshold(0).dtype == np.float32
    assert cuts.threshold(1) == low


@pytest.mark.parametrize(("k", "expected"), [(1, 0.0), (2, 0.5), (9, 0.5)])
def test_reciprocal_rank(k: int, expected: float) -> None:
    assert reciprocal_rank(np.array([False, True, True]), k) == expected


def test_perfect_and_worst() -> None:
    relevant = np.array([True, True, False, False])
    best, worst = np.array([4.0, 3.0, 2.0, 1.0]), np.array([1.0, 2.0, 3.0, 4.0])
    assert average_precision(Cuts.of(best, relevant)) == ndcg(best, relevant, 4) == 1.0
    assert matthews_correlation(Cuts.of(best, relevant), 1) == 1.0
    assert matthews_correlation(Cuts.of(worst, relevant), 1) == -1.0
    assert ndcg(worst, relevant, 2) == 0.0
    assert average_precision(Cuts.of(worst, relevant)) == pytest.approx((1 / 3 + 2 / 4) / 2)
