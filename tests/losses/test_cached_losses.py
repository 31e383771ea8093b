"""The cached losses against the plain ones, in tiles of every size, and what their tiles hold in memory."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from loss_cases import CASES, DIM, Bound, Case, batch, computed, made
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from minisbert import losses, util
from minisbert.losses.cached import sum_of_tiles

BOUND = 1e-6  # of the largest element
SIZES = (1, 3, 7, 100)
RANKING = (
    "MultipleNegativesRankingLoss",
    "MultipleNegativesSymmetricRankingLoss",
    "GISTEmbedLoss",
)
PLAIN = [case for case in CASES if case.loss in RANKING]


class Sized(nn.Module):
    """A model with embeddings of a size."""

    def get_sentence_embedding_dimension(self) -> int:
        return DIM


def pair_of(case: Case, size: int) -> tuple[Bound, Bound]:
    """The plain loss of a case, and the cached one."""
    cached = Case(f"Cached{case.loss}", {**case.options, "mini_batch_size": size})
    return tuple(Bound(made(one, losses, util, Sized())) for one in (case, cached))  # type: ignore[return-value]


def share(got: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference as a share of the largest element."""
    left, right = (torch.cat([part.flatten() for part in parts]) for parts in (got, expected))
    return float((left - right).abs().max() / right.abs().max().clamp(min=0.25))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_value_and_gradients_of_the_plain_loss(case: Case, size: int) -> None:
    plain, cached = pair_of(case, size)
    for rows in (1, 2, 33):
        for columns in case.columns:
            parts = [part.float() for part in batch(case, rows, columns, kind="duplicates")[0]]
            value, gradients = computed(cached, parts)
            expected, expected_gradients = computed(plain, parts)
            assert share([value], [expected]) <= BOUND
            assert share(gradients, expected_gradients) <= BOUND
            with torch.inference_mode():  # without gradients, as in an evaluation
                assert share([cached(parts)], [expected]) <= BOUND


@pytest.mark.parametrize("size", SIZES)
def test_inside_a_matryoshka_loss(size: int) -> None:
    inner = losses.CachedMultipleNegativesRankingLoss(mini_batch_size=size, mini_batch_num_tokens=9)
    cached = losses.MatryoshkaLoss(None, inner, [DIM, 5])
    assert (cached.cached, cached.mini_batch_size, cached.mini_batch_num_tokens) == (True, size, 9)
    plain = losses.MatryoshkaLoss(None, losses.MultipleNegativesRankingLoss(), [DIM, 5])
    assert not plain.cached
    parts = [part.float() for part in batch(PLAIN[0], 33, 3)[0]]
    (value, gradients), (expected, wanted) = computed(cached, parts), computed(plain, parts)
    assert share([value], [expected]) <= BOUND
    assert share(gradients, wanted) <= BOUND


class Largest(TorchDispatchMode):
    """Note the number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(one, Tensor):
                self.elements = max(self.elements, one.untyped_storage().nbytes() // one.element_size())
        return result


@pytest.mark.parametrize(
    "loss",
    [
        losses.CachedMultipleNegativesRankingLoss(mini_batch_size=4),
        losses.CachedMultipleNegativesRankingLoss(
            mini_batch_size=4,
            directions=("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"),
            hardness_mode="all_negatives",
            hardness_strength=2.0,
        ),
        losses.CachedMultipleNegativesSymmetricRankingLoss(mini_batch_size=4),
    ],
)
def test_no_matrix_of_all_pairs_is_made(loss: losses.Loss) -> None:
    rows, dim = 600, 8
    parts = [torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)).requires_grad_() for seed in (1, 2)]
    with Largest() as seen:
        loss(parts).backward()
    assert seen.elements <= 4 * 4 * rows  # four rows against the candidates of four directions
    with Largest() as seen:
        losses.MultipleNegativesRankingLoss()(parts).backward()
    assert seen.elements >= rows * rows  # which the plain loss does make


def test_single_pairs_for_a_guide_are_bounded() -> None:
    rows, dim = 300, 8
    loss = losses.CachedGISTEmbedLoss(None, Sized(), mini_batch_size=2)
    parts = [torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)).requires_grad_() for seed in (1, 2)]
    guided = [part.detach() for part in parts]
    with Largest() as seen:
        loss(parts, None, guided).backward()
    assert seen.elements <= 2 * rows * dim


def test_a_large_tile_for_a_guide_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guide's tiles hold a vector for each pair: few rows make one if vectors are long."""
    rows, dim = 60, 8
    monkeypatch.setattr(losses.CachedGISTEmbedLoss, "largest_tile", rows * dim)
    parts = [torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)).requires_grad_() for seed in (1, 2)]
    with Largest() as seen:
        losses.CachedGISTEmbedLoss(None, Sized())(parts, None, [part.detach() for part in parts]).backward()
    assert seen.elements <= rows * dim


# ---- tiles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (5, 1), (5, 2), (5, 5), (5, 9)])
def test_sum_of_tiles(rows: int, size: int) -> None:
    a, b, constant = (torch.randn(rows, 3, dtype=torch.float64) for _ in range(3))
    a.requires_grad_()
    b.requires_grad_()

    def tile(part: slice, a: Tensor, b: Tensor, constant: Tensor) -> Tensor:
        return ((a[part] @ b.T).exp() @ constant).sum()

    assert torch.autograd.gradcheck(lambda a, b: sum_of_tiles(tile, (a, b, constant), rows=rows, size=size), (a, b))
    whole = tile(slice(0, rows), a, b, constant)
    value = sum_of_tiles(tile, (a, b, constant), rows=rows, size=size)
    assert value.item() == pytest.approx(whole.item(), rel=1e-12)


def test_an_input_that_does_not_matter() -> None:
    a, b = (torch.ones(4, 2, requires_grad=True) for _ in range(2))
    sum_of_tiles(lambda rows, a, b: a[rows].sum(), (a, b), rows=4, size=3).backward()
    assert a.grad is not None
    assert b.grad is not None
    assert torch.equal(a.grad, torch.ones(4, 2))
    assert not b.grad.any()


def test_a_copy_of_a_cached_loss_is_one() -> None:
    loss = copy.deepcopy(losses.CachedMultipleNegativesRankingLoss(mini_batch_size=3))
    assert loss.cached
    assert loss.mini_batch_size == 3
    assert not loss.recordable
