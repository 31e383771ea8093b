"""Every kernel against its plain definition, forward and backward, on odd shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from minisbert.kernels.cpu_ops import onednn, training
from torch import Tensor

from minisbert import kernels
from minisbert.errors import ConfigError
from minisbert.kernels import AttentionSettings, AttentionSpec, plain
from minisbert.packing import PackedBatch, pack, pack_padded
from minisbert.text import TokenizedTexts

needs_onednn = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN linear"
)


def gradients(function: object, *inputs: Tensor | None) -> list[Tensor]:
    leaves = [None if value is None else value.clone().requires_grad_(True) for value in inputs]
    output = function(*leaves)  # type: ignore[operator]
    weights = torch.linspace(-1, 1, output.numel()).view_as(output)
    (output * weights).sum().backward()
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf is not None)]


@needs_onednn
@pytest.mark.parametrize("tokens", [1, 2, 15, 17, 257])
@pytest.mark.parametrize(("inner", "outer"), [(1, 1), (3, 5), (32, 33), (384, 1536)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_cpu_linear(tokens: int, inner: int, outer: int, with_bias: bool) -> None:
    torch.manual_seed(tokens)
    x, weight = torch.randn(tokens, inner), torch.randn(outer, inner)
    bias = torch.randn(outer) if with_bias else None
    exact = gradients(plain.linear, x.double(), weight.double(), None if bias is None else bias.double())
    for got, expected in zip(gradients(onednn.linear, x, weight, bias), exact, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=2e-6 * inner * max(tokens, 8) ** 0.5)


@needs_onednn
def test_cpu_linear_gives_only_the_gradients_asked_for() -> None:
    x, weight = torch.randn(3, 4), torch.randn(5, 4, requires_grad=True)
    onednn.linear(x, weight, None).sum().backward()
    assert weight.grad is not None
    assert x.grad is None
    with torch.no_grad():
        assert not onednn.linear(x, weight, None).requires_grad


@pytest.mark.skipif(not onednn.bfloat16_available(), reason="the processor has no products in bfloat16")
@pytest.mark.parametrize("tokens", [1, 17, 257])
@pytest.mark.parametrize("with_bias", [True, False])
def test_cpu_linear_in_bfloat16(tokens: int, with_bias: bool) -> None:
    """Against the same rounding of both factors, with the sums in float64."""
    torch.manual_seed(tokens)
    x, weight = torch.randn(tokens, 48), torch.randn(33, 48)
    bias = torch.randn(33) if with_bias else None
    rounded = [None if value is None else value.bfloat16().double() for value in (x, weight, bias)]
    exact = gradients(plain.linear, *rounded)
    for got, expected in zip(gradients(onednn.half_linear, x, weight, bias), exact, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-2 * float(expected.abs().max()))


def test_operations_are_chosen_by_mode_dtype_and_batch(without_native: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "available", lambda: True)
    monkeypatch.setattr(onednn, "bfloat16_available", lambda: True)
    batch = pack(TokenizedTexts(np.zeros(3, np.int32), np.array([1, 2]), 0))
    x = torch.zeros(3, 4)

    def chosen(values: Tensor, batch: PackedBatch = batch, **options: bool) -> str:
        return type(kernels.choose(values, batch, **options)).__name__

    with kernels.use("auto"):
        assert chosen(x) == "OneDnn"
        with kernels.use("reference"):
            assert chosen(x) == "Plain"
        with torch.autocast("cpu", torch.bfloat16):
            assert chosen(x) == "Plain"
        assert chosen(x, compiled=True) == "Plain"
        assert chosen(x.double()) == chosen(x.bfloat16()) == "Plain"
        with torch.no_grad():
            assert chosen(x.bfloat16()) == "OneDnnHalf"
    padded = pack_padded([np.zeros(2, np.int32)], padding=0)
    for mode in ("auto", "reference"):
        with kernels.use(mode):  # type: ignore[arg-type]
            assert chosen(x, padded) == "Padded"
    with pytest.raises(ConfigError, match="expected auto or reference"), kernels.use("fastest"):  # type: ignore[arg-type]
        pass


def test_built_operations_are_chosen(with_native: None, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, x = pack(TokenizedTexts(np.zeros(3, np.int32), np.array([1, 2]), 0)), torch.zeros(3, 4)
    assert type(kernels.choose(x, batch)) is training.Whole
    for half in (True, False):
        monkeypatch.setattr(onednn, "bfloat16_available", lambda half=half: half)
        with torch.autocast("cpu", torch.bfloat16):
            assert type(kernels.choose(x, batch)) is (training.Whole if half else plain.Plain)
    with torch.autocast("cpu", torch.float16):
        assert type(kernels.choose(x, batch)) is plain.Plain


def test_attention_stays_within_each_text() -> None:
    torch.manual_seed(0)
    lengths = [1, 4, 4, 7, 2]
    texts = TokenizedTexts(torch.arange(sum(lengths)).int().numpy(), torch.tensor(lengths).numpy(), 0)
    batch = pack(texts)
    q, k, v = torch.randn(3, batch.tokens, 12).unbind()
    bias = torch.randn(3, 7, 7)
    got = plain.attention(q, k, v, batch, AttentionSpec(AttentionSettings(3), bias=bias))
    start = 0
    for length in sorted(lengths):
        rows = slice(start, start + length)
        split = [part[rows].view(length, 3, 4).transpose(0, 1).double() for part in (q, k, v)]
        scores = split[0] @ split[1].transpose(1, 2) / 2 + bias[:, :length, :length]
        expected = (scores.softmax(-1) @ split[2]).transpose(0, 1).reshape(length, 12)
        torch.testing.assert_close(got[rows].double(), expected, rtol=1e-5, atol=1e-6)
        start += length


def test_text_sum() -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    index = torch.tensor([0, 0, 2])
    expected = torch.tensor([[4.0, 6.0], [0.0, 0.0], [5.0, 6.0]])
    assert torch.equal(plain.text_sum(values, index, 3), expected)
    assert plain.text_sum(values.bfloat16(), index, 3).dtype == torch.float32


def test_texts_without_tokens() -> None:
    batch = pack(TokenizedTexts(np.zeros(0, np.int32), np.zeros(2, np.int64), 0))
    nothing = torch.zeros(0, 32)
    assert plain.attention(nothing, nothing, nothing, batch, AttentionSpec(AttentionSettings(4))).shape == (0, 32)
