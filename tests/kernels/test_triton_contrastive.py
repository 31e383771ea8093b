"""The contrastive loss in Triton against its plain definition in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("triton")

import triton_common
from minisbert.kernels.triton_ops import contrastive as op
from triton_common import BACKWARD, DEVICE, DTYPES, FORWARD, close, drawn, poisoned  # noqa: F401

from minisbert.errors import ConfigError
from minisbert.kernels import plain

pytestmark = triton_common.pytestmark


def both(queries: torch.Tensor, candidates: torch.Tensor, **settings: Any) -> list[list[torch.Tensor]]:
    """Loss and gradients by the kernel and by the definition."""
    results = []
    for function, dtype in ((op.contrastive, queries.dtype), (plain.contrastive, torch.float64)):
        leaves = [value.detach().to(dtype).requires_grad_(True) for value in (queries, candidates)]
        loss = function(*leaves, **settings)
        (loss * 3).backward()
        results.append([loss.detach(), *(leaf.grad for leaf in leaves)])
    return results


@pytest.mark.parametrize(
    ("queries", "candidates", "dim", "dtype"),
    [
        (1, 1, 16, torch.float32),
        (1, 2, 384, torch.float32),
        (2, 2, 16, torch.float32),
        (15, 17, 48, torch.float32),
        (16, 33, 144, torch.float32),
        (33, 40, 384, torch.float32),
        (66, 130, 32, torch.float32),
        (3, 9, 400, torch.float32),
        *((*sizes, dtype) for dtype in DTYPES[1:] for sizes in ((1, 2, 16), (17, 70, 384), (66, 130, 48), (3, 9, 400))),
    ],
)
def test_contrastive(queries: int, candidates: int, dim: int, dtype: torch.dtype) -> None:
    anchors = drawn(queries, dim, dtype=dtype)
    texts = drawn(candidates, dim, dtype=dtype, seed=1) * 3
    texts[:queries] += anchors
    got, expected = both(anchors, texts)
    assert got[0].dtype == torch.float32
    assert got[1].dtype == got[2].dtype == dtype
    assert abs(float(got[0]) - float(expected[0])) <= max(FORWARD[dtype] * float(expected[0]), 1e-5)
    for grad, wanted in zip(got[1:], expected[1:], strict=True):
        # What has converged has gradients near 0: differences count against those of a score that has not.
        size = max(float(wanted.abs().max()), 3 * 20 / queries / dim**0.5)
        assert float((grad.double() - wanted).abs().max()) <= BACKWARD[dtype] * size


@pytest.mark.parametrize(("scale", "bound"), [(1.0, 1e-5), (20.0, 1e-5), (200.0, 1e-4)])
def test_scale(scale: float, bound: float) -> None:
    got, expected = both(drawn(20, 32), drawn(50, 32, seed=1), scale=scale)
    for value, wanted in zip(got, expected, strict=True):
        close(value, wanted, bound)


def test_many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the candidates are cut, the numbers are the same; here into one part, and into one for each block."""
    queries, candidates = drawn(10, 32), drawn(300, 32, seed=1)
    results = []
    for programs in (1, 10_000):
        monkeypatch.setattr(op, "_PROGRAMS", programs)
        results += both(queries, candidates)[:1]
    for one, other in zip(*results, strict=True):
        close(one, other, 1e-5)


def test_rows_of_zeros() -> None:
    queries, candidates = drawn(5, 32), drawn(9, 32, seed=1)
    queries[2], candidates[7] = 0, 0
    got, expected = both(queries, candidates)
    close(got[0], expected[0], 1e-5)
    assert not got[1][2].any()
    assert not got[2][7].any()
    expected[1][2], expected[2][7] = 0, 0
    close(got[1], expected[1], 1e-5)
    close(got[2], expected[2], 1e-5)


@pytest.mark.parametrize(
    ("queries", "candidates", "message"),
    [
        ((3, 24), (3, 24), "got vectors of size 24"),
        ((4, 16), (3, 16), "got 4 queries and 3 candidates"),
        ((0, 16), (3, 16), "got 0 queries and 3 candidates"),
        ((3, 16), (3, 32), "got candidates of shape"),
    ],
)
def test_bad_input(queries: Any, candidates: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        op.contrastive(drawn(*queries), drawn(*candidates))
