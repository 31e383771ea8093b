"""The plain definition of the contrastive loss."""

from __future__ import annotations

import torch

from minisbert.kernels import plain
from minisbert.losses import MultipleNegativesRankingLoss


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape) + shape[0]))


def test_it_is_the_ranking_loss() -> None:
    anchors, positives, negatives = drawn(5, 8), drawn(5, 8) + 1, drawn(5, 8) - 1
    expected = MultipleNegativesRankingLoss(scale=7.0)([anchors, positives, negatives])
    got = plain.contrastive(anchors, torch.cat([positives, negatives]), scale=7.0)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
