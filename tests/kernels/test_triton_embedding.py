"""Embeddings summed and normalized as a Triton kernel, against their definition in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

import triton_common
from minisbert.kernels.triton_ops import embedding
from triton_common import (  # noqa: F401
    BACKWARD,
    DEVICE,
    DTYPES,
    FORWARD,
    close,
    drawn,
    dropout_mask,
    gradients,
    poisoned,
    seed_of,
)

from minisbert.errors import ConfigError
from minisbert.kernels import plain

pytestmark = triton_common.pytestmark


def numbers(tokens: int, below: int, seed: int) -> Tensor:
    return torch.randint(below, (tokens,), generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def tables(dim: int, dtype: torch.dtype, kinds: int = 2) -> list[Tensor | None]:
    token_type = drawn(2, dim, dtype=dtype, seed=2) if kinds else None
    weights = drawn(dim, seed=3), drawn(dim, seed=4)
    return [drawn(50, dim, dtype=dtype), drawn(20, dim, dtype=dtype, seed=1), token_type, *weights]


@pytest.mark.parametrize(("tokens", "dim"), [(1, 384), (17, 48), (33, 128)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kinds", "dropout"), [(0, 0.0), (1, 0.3), (2, 0.0)])
def test_embed_norm(tokens: int, dim: int, dtype: torch.dtype, kinds: int, dropout: float) -> None:
    ids, positions = numbers(tokens, 50, 0), numbers(tokens, 20, 1)
    types = numbers(tokens, 2, 2) if kinds == 2 else None
    seed = seed_of(11)
    mask = dropout_mask(seed, tokens, dim, dropout) / (1 - dropout)
    values = tables(dim, dtype, kinds)

    def exact(*given: Tensor) -> Tensor:
        return plain.embed_norm(ids, positions, types, *given, eps=1e-12) * mask

    def operation(*given: Tensor) -> Tensor:
        return embedding.embed_norm(ids, positions, types, *given, eps=1e-12, dropout=dropout, seed=seed)

    expected = gradients(exact, *(None if value is None else value.double() for value in values))
    got = gradients(operation, *values)
    assert got[0].dtype == dtype
    close(got[0], expected[0], FORWARD[dtype])
    assert len(got) == len(expected) == 5 + (kinds > 0)
    for grad, right in zip(got[1:], expected[1:], strict=True):
        close(grad, right, BACKWARD[dtype])


def test_only_the_slopes_asked_for() -> None:
    word, position, token_type, weight, bias = tables(32, torch.float32)
    position.requires_grad_(True)
    ids = numbers(7, 20, 0)
    embedding.embed_norm(ids, ids, None, word, position, token_type, weight, bias, eps=1e-12).sum().backward()
    assert position.grad is not None
    assert word.grad is token_type.grad is weight.grad is None


def test_numbers_beyond_a_table_give_nan() -> None:
    values = tables(32, torch.float32)
    values[0].requires_grad_(True)
    for wrong in (-1, 50, 2**40):
        ids, positions = numbers(6, 20, 0), numbers(6, 20, 1)
        ids[2] = wrong
        out = embedding.embed_norm(ids, positions, None, *values, eps=1e-12)
        assert out.detach().isnan().all(1).tolist() == [False, False, True, False, False, False]
        out.sum().backward()


def test_no_tokens() -> None:
    none = numbers(0, 5, 0)
    got = gradients(
        lambda *given: embedding.embed_norm(none, none, None, *given, eps=1e-12), *tables(32, torch.float32)
    )
    assert [list(value.shape) for value in got] == [[0, 32], [50, 32], [20, 32], [2, 32], [32], [32]]
    assert not any(value.any() for value in got)


def test_refused() -> None:
    values, ids = tables(32, torch.float32), numbers(5, 2, 0)
    with pytest.raises(ConfigError, match="got ids"):
        embedding.embed_norm(ids.int(), ids, None, *values, eps=1e-12)
    with pytest.raises(ConfigError, match="got positions"):
        embedding.embed_norm(ids, ids[:3], None, *values, eps=1e-12)
    with pytest.raises(ConfigError, match="got token_type"):
        embedding.embed_norm(ids, ids, None, *values[:2], values[2].half(), *values[3:], eps=1e-12)
