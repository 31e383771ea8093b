"""Normalization with residual and dropout as a Triton kernel, against its definition in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from minisbert.kernels.triton_ops import norm
from triton_common import (  # noqa: F401
    BACKWARD,
    DTYPES,
    FORWARD,
    close,
    drawn,
    dropout_mask,
    gradients,
    poisoned,
    pytestmark,
    seed_of,
)

from minisbert.errors import ConfigError
from minisbert.kernels import plain

SIZES = [(1, 384), (2, 128), (3, 768), (16, 16), (33, 48)]


def double(*values: Tensor | None) -> list[Tensor | None]:
    return [None if value is None else value.double() for value in values]


def inputs(tokens: int, dim: int, dtype: torch.dtype, stream: torch.dtype | None) -> list[Tensor | None]:
    weight = drawn(dim, seed=3)
    weight[::3] = 0
    residual = None if stream is None else drawn(tokens, dim, dtype=stream, seed=2)
    return [drawn(tokens, dim, dtype=dtype) + 3, residual, weight, drawn(dim, seed=4), drawn(dim, seed=5)]


def add_norm(*values: Tensor | None, **settings: Any) -> Tensor:
    """The operation where all is of one dtype."""
    out, rounded = norm.add_norm(*values, eps=1e-12, **settings)
    assert out is rounded
    return out


def exact(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    x_bias: Tensor | None = None,
    mask: Tensor | float = 1,
) -> Tensor:
    return plain.add_norm((x if x_bias is None else x + x_bias) * mask, residual, weight, bias, eps=1e-12)


@pytest.mark.parametrize(("tokens", "dim"), SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_add_norm(tokens: int, dim: int, dtype: torch.dtype, dropout: float) -> None:
    values = inputs(tokens, dim, dtype, dtype)[:4]
    seed = seed_of(9)
    mask = dropout_mask(seed, tokens, dim, dropout) / (1 - dropout)
    expected = gradients(lambda *given: exact(*given, mask=mask), *double(*values))
    got = gradients(lambda *given: add_norm(*given, dropout=dropout, seed=seed), *values)
    assert got[0].dtype == dtype
    assert len(got) == len(expected) == 5
    close(got[0], expected[0], FORWARD[dtype])
    for grad, right in zip(got[1:], expected[1:], strict=True):
        close(grad, right, BACKWARD[dtype])


@pytest.mark.parametrize("stream", [None, torch.float32])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_add_norm_with_bias_and_another_stream(stream: torch.dtype | None, dtype: torch.dtype, dropout: float) -> None:
    values = inputs(17, 96, dtype, stream)
    seed = seed_of(2**62 + 5)
    mask = dropout_mask(seed, 17, 96, dropout) / (1 - dropout)

    def operation(*given: Tensor) -> Tensor:
        both = norm.add_norm(*given[:4], x_bias=given[4], eps=1e-12, dropout=dropout, seed=seed)
        assert [value.dtype for value in both] == [stream or dtype, dtype]
        close(both[1].detach(), both[0].detach(), torch.finfo(dtype).eps)
        return torch.cat([both[0].float(), both[1].float()])

    expected = gradients(lambda *given: exact(*given, mask=mask).repeat(2, 1), *double(*values))
    got = gradients(operation, *values)
    assert len(got) == len(expected) == 5 + (stream is not None)
    close(got[0][:17], expected[0][:17], FORWARD[stream or dtype])
    for grad, right in zip(got[1:], expected[1:], strict=True):
        close(grad, right, BACKWARD[dtype])


def test_each_of_both_outputs_has_its_gradient() -> None:
    values = inputs(3, 32, torch.float16, torch.float32)
    for taken in (0, 1):
        expected = gradients(exact, *double(*values[:4]))
        got = gradients(lambda *given, taken=taken: norm.add_norm(*given, eps=1e-12)[taken].float(), *values[:4])
        for grad, right in zip(got[1:], expected[1:], strict=True):
            close(grad, right, BACKWARD[torch.float16])


def test_many_rows_share_the_partial_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm, "PARTIALS", 3)
    tokens = 16 * 7 + 5
    values = inputs(tokens, 16, torch.float32, torch.float32)[:4]
    expected = gradients(exact, *double(*values))
    got = gradients(add_norm, *values)
    for value, right in zip(got, expected, strict=True):
        close(value, right, BACKWARD[torch.float32])


def test_rows_that_hardly_vary() -> None:
    x, weight, bias = 100 + drawn(4, 384) * 1e-2, drawn(384, seed=1), drawn(384, seed=2)
    got = add_norm(x, None, weight, bias)
    close(got, exact(*double(x, None, weight, bias)), 2e-3)
    constant = add_norm(torch.full_like(x, 0.1), None, torch.ones_like(weight), torch.zeros_like(bias))
    assert float(constant.abs().max()) < 0.1


def test_rows_that_do_not_lie_one_after_the_other() -> None:
    x, weight, bias = drawn(5, 96), drawn(48), drawn(48)
    got = add_norm(x[:, :48], None, weight, bias)
    assert torch.equal(got, add_norm(x[:, :48].contiguous(), None, weight, bias))


def test_no_rows() -> None:
    empty = drawn(0, 48)
    got = gradients(add_norm, empty, empty, drawn(48), drawn(48))
    assert [value.shape[0] for value in got] == [0, 0, 0, 48, 48]
    assert not got[3].any()
    assert not got[4].any()


def test_dropout_draws_its_own_seed() -> None:
    x, weight, bias = drawn(20, 96), torch.ones_like(drawn(96)), torch.zeros_like(drawn(96))
    torch.manual_seed(1)
    first = add_norm(x, None, weight, bias, dropout=0.5)
    assert not torch.equal(add_norm(x, None, weight, bias, dropout=0.5), first)
    torch.manual_seed(1)
    assert torch.equal(add_norm(x, None, weight, bias, dropout=0.5), first)


def test_refused() -> None:
    x, weight = drawn(3, 32), drawn(32)
    for wrong in (drawn(32), drawn(3, 33), x.double(), drawn(2, 2, 32)):
        with pytest.raises(ConfigError, match="expected rows of a multiple of 16"):
            norm.add_norm(wrong, None, weight, weight, eps=1e-12)
    with pytest.raises(ConfigError, match="got residual"):
        norm.add_norm(x, drawn(4, 32), weight, weight, eps=1e-12)
    with pytest.raises(ConfigError, match="got weight"):
        norm.add_norm(x, None, drawn(16), weight, eps=1e-12)
    with pytest.raises(ConfigError, match="got dropout 1"):
        norm.add_norm(x, None, weight, weight, eps=1e-12, dropout=1.0)
    with pytest.raises(ConfigError, match="got a seed"):
        norm.add_norm(x, None, weight, weight, eps=1e-12, dropout=0.1, seed=torch.tensor([1.0], device=x.device))
