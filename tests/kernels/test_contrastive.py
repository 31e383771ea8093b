"""The plain definition of the contrastive loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from minisbert.kernels import plain
from minisbert.losses import MultipleNegativesRankingLoss


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape) + shape[0]))


def test_it_is_the_ranking_loss() -> None:
    anchors, positives, negatives = drawn(5, 8), drawn(5, 8) + 1, drawn(5, 8) - 1
    expected = MultipleNegativesRankingLoss(scale=7.0)([anchors, positives, negatives])
    got = plain.contrastive(anchors, torch.cat([positives, negatives]), scale=7.0)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


def test_ids_take_pairs_out() -> None:
    queries, candidates = drawn(3, 4), drawn(6, 4)
    ids = torch.tensor([4, 5, 4, 4, 6, 5])
    scores = 20 * F.cosine_similarity(queries[:, None], candidates[None], dim=2)
    left = [[0, 1, 4, 5], [0, 1, 2, 3, 4], [1, 2, 4, 5]]  # by hand
    losses = [scores[row, kept].logsumexp(0) - scores[row, row] for row, kept in enumerate(left)]
    torch.testing.assert_close(plain.contrastive(queries, candidates, ids=ids), sum(losses) / 3, rtol=1e-12, atol=0)


def test_different_ids_change_nothing() -> None:
    queries, candidates = drawn(3, 4), drawn(6, 4)
    assert plain.contrastive(queries, candidates, ids=torch.arange(6)).equal(plain.contrastive(queries, candidates))
