"""GELU with a bias as a Triton kernel, against its definition in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

import triton_common
from minisbert.kernels.triton_ops import gelu as operation
from triton_common import BACKWARD, DTYPES, FORWARD, close, drawn, gradients, poisoned  # noqa: F401

from minisbert.errors import ConfigError
from minisbert.kernels import plain

pytestmark = triton_common.pytestmark


def exact(x: Tensor, bias: Tensor | None = None) -> Tensor:
    return plain.gelu(x if bias is None else x + bias)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1536), (2, 33), (17, 16), (15, 600), (3, 2, 48), (70,)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_bias_gelu(shape: tuple[int, ...], dtype: torch.dtype, with_bias: bool) -> None:
    values = [drawn(*shape, dtype=dtype) * 2, *([drawn(shape[-1], seed=1)] if with_bias else [])]
    expected = gradients(exact, *(value.double() for value in values))
    got = gradients(lambda x, bias=None: operation.bias_gelu(x, bias), *values)
    assert got[0].dtype == got[1].dtype == dtype
    close(got[0], expected[0], FORWARD[dtype])
    assert len(got) == len(expected) == 2 + with_bias
    for grad, right in zip(got[1:], expected[1:], strict=True):
        close(grad, right, BACKWARD[dtype])


def test_many_rows_share_the_partial_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operation, "PARTIALS", 3)
    values = [drawn(64 * 7 + 5, 32), drawn(32, seed=1)]
    expected = gradients(exact, *(value.double() for value in values))
    for value, right in zip(gradients(operation.bias_gelu, *values), expected, strict=True):
        close(value, right, BACKWARD[torch.float32])


def test_near_zero_and_far_out() -> None:
    like = drawn(1)
    small = torch.logspace(-30, -3, 100).to(like)
    for x in (small, -small):
        torch.testing.assert_close(operation.bias_gelu(x, None).double(), plain.gelu(x.double()), rtol=1e-6, atol=0)
    far = torch.tensor([-1e18, -100.0, -20.0, 0.0, 20.0, 100.0, 1e18]).to(like).requires_grad_(True)
    out = operation.bias_gelu(far, None)
    out.sum().backward()
    torch.testing.assert_close(out.detach(), far.detach().relu(), rtol=0, atol=1e-30)
    assert far.grad.tolist() == pytest.approx([0, 0, 0, 0.5, 1, 1, 1], abs=1e-30)
    assert operation.bias_gelu(torch.tensor([torch.nan, 1.0]).to(like), None)[0].isnan()
    assert operation.bias_gelu(torch.tensor([torch.inf]).to(like), None).item() == math.inf


def test_nothing_and_what_does_not_lie_together() -> None:
    got = gradients(operation.bias_gelu, drawn(0, 48), drawn(48))
    assert [list(value.shape) for value in got] == [[0, 48], [0, 48], [48]]
    assert not got[2].any()
    x = drawn(48, 5)
    assert torch.equal(operation.bias_gelu(x.T, None), operation.bias_gelu(x, None).T)


def test_refused() -> None:
    for wrong in (drawn(3, 32).double(), drawn(3)[0]):
        with pytest.raises(ConfigError, match="expected one dimension or more"):
            operation.bias_gelu(wrong, None)
    with pytest.raises(ConfigError, match="got bias"):
        operation.bias_gelu(drawn(3, 32), drawn(16))
