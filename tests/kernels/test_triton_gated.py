"""Gated units and rotary positions as Triton kernels, against their definitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

pytest.importorskip("triton")

from dataclasses import replace
from functools import partial

import triton_common
from minisbert.kernels.triton_ops import gated as gated_units
from minisbert.kernels.triton_ops import rotary
from minisbert.kernels.triton_ops.operations import Triton
from triton_common import BACKWARD, DTYPES, FORWARD, close, drawn, gradients, poisoned  # noqa: F401

from minisbert.errors import ConfigError
from minisbert.kernels import AttentionSettings, AttentionSpec, Projections, plain

pytestmark = triton_common.pytestmark
ACTIVATIONS = {"gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh"), "relu": F.relu, "silu": F.silu}


@pytest.mark.parametrize("shape", [(1, 1), (1, 1536), (2, 33), (15, 600), (3, 2, 48), (70,)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gated(shape: tuple[int, ...], dtype: torch.dtype, activation: str) -> None:
    values = [drawn(*shape, dtype=dtype) * 2, drawn(*shape, dtype=dtype, seed=1)]
    expected = gradients(
        lambda x, gate: plain.gated(x, gate, ACTIVATIONS[activation]), *(value.double() for value in values)
    )
    got = gradients(lambda x, gate: gated_units.gated(x, gate, activation), *values)
    assert {value.dtype for value in got} == {dtype}
    close(got[0], expected[0], FORWARD[dtype])
    for grad, right in zip(got[1:], expected[1:], strict=True):
        close(grad, right, BACKWARD[dtype])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_far_out(activation: str) -> None:
    x = torch.tensor([-1e18, -100.0, 0.0, 100.0, 1e18]).to(drawn(1)).requires_grad_(True)
    out = gated_units.gated(x, torch.ones_like(x), activation)
    out.sum().backward()
    torch.testing.assert_close(out.detach(), x.detach().relu(), rtol=0, atol=1e-30)
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


@pytest.mark.parametrize(("heads", "size"), [(1, 2), (3, 6), (2, 16), (3, 48), (1, 128), (2, 80)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rotary(heads: int, size: int, dtype: torch.dtype) -> None:
    like = drawn(37, heads * size, dtype=dtype)
    positions = torch.cat([torch.arange(17), torch.arange(20) + 8170]).to(like.device)
    expected = gradients(lambda x: plain.rotate(x, positions, size, 160_000.0), like.double())
    got = gradients(lambda x: rotary.rotate(x, positions, size, 160_000.0), like)
    assert got[0].dtype == got[1].dtype == dtype
    close(got[0], expected[0], FORWARD[dtype])
    close(got[1], expected[1], BACKWARD[dtype])


def test_nothing() -> None:
    assert gated_units.gated(drawn(0, 48), drawn(0, 48), "silu").shape == (0, 48)
    empty = drawn(0, 32)
    assert rotary.rotate(empty, torch.empty(0, dtype=torch.int64, device=empty.device), 16, 1e4).shape == (0, 32)


@pytest.mark.parametrize("base", [None, 10_000.0])
def test_operations_take_them(base: float | None) -> None:
    """Attention with rotary positions, and a gated unit, equal the definitions in both directions."""
    batch = triton_common.batch_of([5, 3, 5])
    like = drawn(batch.tokens, 32)
    layers = [nn.Linear(32, 32, bias=False).to(like) for _ in range(5)]
    grouped = [nn.Linear(32, 16, bias=False).to(like) for _ in range(2)]
    spec = AttentionSpec(AttentionSettings(2, rotary_base=base))
    kinds = {spec.settings: layers[1:3], replace(spec.settings, window=2): layers[1:3]}
    for settings, others in {**kinds, replace(spec.settings, key_value_heads=1): grouped}.items():
        spec, projections = AttentionSpec(settings), Projections(layers[0], *others)
        outputs = [
            gradients(
                lambda x, operations=operations, projections=projections, spec=spec: operations.activate(
                    operations.attention(x, projections, batch, spec), layers[3], F.silu, layers[4]
                ),
                like,
            )
            for operations in (Triton(), plain.Plain())
        ]
        for got, right in zip(*outputs, strict=True):
            close(got, right, BACKWARD[torch.float32])


def test_refused() -> None:
    with pytest.raises(ConfigError, match="got activation 'swish2'; expected one of gelu"):
        gated_units.gated(drawn(3, 32), drawn(3, 32), "swish2")
    with pytest.raises(ConfigError, match="expected equal ones"):
        gated_units.gated(drawn(3, 32), drawn(3, 16), "silu")
    x: Tensor = drawn(3, 30)
    with pytest.raises(ConfigError, match="expected rows of heads of an even size"):
        rotary.rotate(x, torch.arange(3, device=x.device), 15, 1e4)
    with pytest.raises(ConfigError, match="got positions"):
        rotary.rotate(x, torch.arange(4, device=x.device), 10, 1e4)
