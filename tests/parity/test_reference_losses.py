"""Losses and their gradients equal the reference's on the same embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from common import columns, difference, value_and_gradients
from torch import Tensor, nn

from minisbert import util
from minisbert.losses import CosineSimilarityLoss, MultipleNegativesRankingLoss

reference = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
functions = pytest.importorskip("sentence_transformers.util")
pytestmark = pytest.mark.parity

BOUND = 5e-7
BATCHES = (1, 2, 7)
LABELS = (0.9, -0.4, 0.0, 1.0, 0.31, -1.0, 0.5)


def hold(
    name: str,
    ours: Callable[[list[Tensor]], Tensor],
    theirs: Callable[[list[Tensor]], Tensor],
    parts: Sequence[Tensor],
    compare: Callable[..., None],
) -> None:
    """Both losses give the same value and gradients."""
    value, gradients = value_and_gradients(ours, parts)
    expected, expected_gradients = value_and_gradients(theirs, parts)
    compare(f"{name}: values", difference(value, expected), BOUND)
    size = sum(gradient.size for gradient in gradients)
    compare(f"{name}: gradients", difference(gradients, expected_gradients), BOUND, cases=size)


@pytest.mark.parametrize("rows", BATCHES)
@pytest.mark.parametrize(
    "options",
    [{}, {"loss_fct": nn.L1Loss()}, {"cos_score_transformation": nn.Sigmoid()}],
    ids=["default", "absolute error", "sigmoid"],
)
def test_cosine(rows: int, options: dict[str, Any], compare: Callable[..., None]) -> None:
    labels = torch.tensor(LABELS[:rows])
    ours, theirs = CosineSimilarityLoss(**options), reference.CosineSimilarityLoss(None, **options)
    hold(
        "CosineSimilarityLoss",
        lambda parts: ours(parts, labels),
        lambda parts: theirs.compute_loss_from_embeddings(parts, labels),
        columns(2, rows),
        compare,
    )
    assert ours.get_config_dict() == theirs.get_config_dict()


@pytest.mark.parametrize("rows", BATCHES)
@pytest.mark.parametrize("negatives", [0, 1, 2, 3])
@pytest.mark.parametrize("similarity", ["cos_sim", "dot_score"])
@pytest.mark.parametrize("scale", [1.0, 20.0, 50])
def test_ranking(rows: int, negatives: int, similarity: str, scale: float, compare: Callable[..., None]) -> None:
    ours = MultipleNegativesRankingLoss(scale=scale, similarity_fct=getattr(util, similarity))
    theirs = reference.MultipleNegativesRankingLoss(None, scale=scale, similarity_fct=getattr(functions, similarity))
    hold(
        "MultipleNegativesRankingLoss",
        ours,
        lambda parts: theirs.compute_loss_from_embeddings(parts, None),
        columns(2 + negatives, rows, seed=2),
        compare,
    )
    assert ours.get_config_dict() == theirs.get_config_dict()
