"""The encoder in C++ against its definition in double precision, in every kind of product that the processor has."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from minisbert.kernels.cpu_ops import int8, native
from torch import Tensor

from minisbert.errors import ConfigError, InputError
from minisbert.kernels import plain
from minisbert.kernels.weights import Affine, EncoderWeights, LayerWeights, Norm
from minisbert.packing import PackedBatch

KINDS: tuple[native.Kind, ...] = ("float32", "bfloat16", "int8")
# dim, heads and inner size: whole panels of 48 columns, and panels of 16 and 32 at the end
SIZES = [(48, 3, 96), (64, 2, 80), (384, 12, 1536)]
# one text; few texts, which threads share; many, of which each takes some; texts of more tokens than one part
TEXTS = [[1], [13], [3, 17], [5] * 40, [1, 2, 2, 9, 15, 16, 17, 33, 200], [300, 520]]
BOUNDS = {"float32": 6e-6, "bfloat16": 3e-2, "int8": 1e-1}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, home: Path) -> native.Kind:
    if not native.offers(request.param):
        pytest.skip("the processor has no such product")
    found: native.Kind = request.param
    return found


def batch_of(lengths: list[int]) -> PackedBatch:
    sizes = torch.tensor(lengths)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    positions = torch.cat([torch.arange(length) for length in lengths])
    index = torch.repeat_interleave(torch.arange(len(lengths)), sizes)
    ids = torch.randint(50, (int(offsets[-1]),))
    order = torch.arange(len(lengths))
    return PackedBatch(ids, positions, index, sizes, offsets.int(), (), order)


def weights_of(dim: int, heads: int, inner: int, kind: native.Kind, *, types: int = 2) -> EncoderWeights:
    """Weights of two layers, drawn so that values neither vanish nor grow."""
    torch.manual_seed(dim)
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32

    def affine(columns: int, depth: int) -> Affine:
        return Affine((torch.randn(columns, depth) / depth**0.5).to(dtype), (torch.randn(columns) * 0.1).to(dtype))

    def norm() -> Norm:
        return Norm((1 + torch.randn(dim) * 0.1).to(dtype), (torch.randn(dim) * 0.1).to(dtype), 1e-12)

    def layer() -> LayerWeights:
        square = (affine(dim, dim) for _ in range(4))
        return LayerWeights(*square, norm(), affine(inner, dim), affine(dim, inner), norm())

    tables = [torch.randn(rows, dim).to(dtype) for rows in (50, 600, types)]
    return EncoderWeights(tables[0], tables[1], tables[2] if types else None, norm(), (layer(), layer()), heads)


def exact(weights: EncoderWeights, batch: PackedBatch, types: Tensor | None) -> Tensor:
    """The definition in double precision, text by text: (tokens, dim)."""

    def product(x: Tensor, affine: Affine) -> Tensor:
        return x @ affine.weight.double().T + affine.bias.double()

    def normalized(x: Tensor, norm: Norm) -> Tensor:
        return plain.add_norm(x, None, norm.weight.double(), norm.bias.double(), eps=norm.eps)

    hidden = weights.word[batch.input_ids].double() + weights.position[batch.positions].double()
    if weights.token_type is not None:
        hidden = hidden + weights.token_type[torch.zeros_like(batch.input_ids) if types is None else types].double()
    hidden = normalized(hidden, weights.norm)
    texts = []
    for x in hidden.split(batch.lengths.tolist()):
        for layer in weights.layers:
            q, k, v = (
                product(x, part).unflatten(1, (weights.heads, -1)).transpose(0, 1)  # (heads, length, dim / heads)
                for part in (layer.query, layer.key, layer.value)
            )
            scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
            attended = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
            x = normalized(product(attended, layer.output) + x, layer.attention_norm)
            x = normalized(product(plain.gelu(product(x, layer.up)), layer.down) + x, layer.output_norm)
        texts.append(x)
    return torch.cat(texts)


@pytest.mark.parametrize(("dim", "heads", "inner"), SIZES)
@pytest.mark.parametrize("lengths", TEXTS)
def test_definition(kind: native.Kind, dim: int, heads: int, inner: int, lengths: list[int]) -> None:
    weights = weights_of(dim, heads, inner, kind)
    assert native.supports(weights, kind)
    encoder, batch = native.NativeEncoder(weights, kind), batch_of(lengths)
    for types in (None, torch.randint(2, (batch.tokens,))):
        got = encoder(batch.input_ids, batch.positions, types, batch)
        expected = exact(weights, batch, types)
        assert got.dtype == torch.float32
        # Values have the size 1. A rounded product is off in single elements more than on the whole.
        assert float((got - expected).norm() / expected.norm()) <= BOUNDS[kind] / 3
        assert float((got - expected).abs().max()) <= BOUNDS[kind] * (1 if kind == "float32" else 4)


@pytest.mark.parametrize(("columns", "depth"), [(16, 16), (80, 48), (384, 1536), (1152, 384)])
@pytest.mark.parametrize("rows", [0, 1, 7, 13, 600])
def test_product(kind: native.Kind, columns: int, depth: int, rows: int) -> None:
    if kind == "int8":
        weight = torch.randint(-127, 128, (columns, depth), dtype=torch.int8)
        x, starts = torch.randint(256, (rows, depth), dtype=torch.uint8), torch.randint(-999, 999, (columns,)).int()
        assert torch.equal(native.product(weight, starts, kind)(x), (x.int() @ weight.int().T) + starts)
        return
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    weight, x, starts = torch.randn(columns, depth).to(dtype), torch.randn(rows, depth).to(dtype), torch.randn(columns)
    expected = x.double() @ weight.double().T + starts.double()
    error = (native.product(weight, starts, kind)(x) - expected).abs()
    assert bool((error <= 3e-7 * depth**0.5 * (1 + x.double().abs() @ weight.double().abs().T) / 4).all())


def test_int8_products_are_exact_sums_of_whole_numbers(home: Path) -> None:
    """Against a layer that quantizes in plain PyTorch, to float32's own rounding."""
    if not native.offers("int8"):
        pytest.skip("the processor has no such product")
    weights = weights_of(64, 2, 80, "int8")
    rounded = [
        LayerWeights(*(_quantized(part) if isinstance(part, Affine) else part for part in layer))
        for layer in weights.layers
    ]
    batch = batch_of([4, 9])
    got = native.NativeEncoder(weights, "int8")(batch.input_ids, batch.positions, None, batch)
    # The weights' rounding is the larger part of what int8 changes; what is left is that of the inputs.
    expected = exact(weights._replace(layers=tuple(rounded)), batch, None)
    assert float((got - expected).norm()) < 0.9 * float((got - exact(weights, batch, None)).norm())


def _quantized(affine: Affine) -> Affine:
    whole, scales = int8.quantize_weight(affine.weight)
    return Affine(whole.float() * scales[:, None], affine.bias)


@pytest.mark.parametrize("types", [0, 1])
def test_tables_of_types(kind: native.Kind, types: int) -> None:
    weights, batch = weights_of(48, 3, 96, kind, types=types), batch_of([3, 8])
    got = native.NativeEncoder(weights, kind)(batch.input_ids, batch.positions, None, batch)
    expected = exact(weights, batch, None)
    assert float((got - expected).norm() / expected.norm()) <= BOUNDS[kind] / 3


def test_a_text_is_the_same_to_the_bit_in_any_company(kind: native.Kind) -> None:
    encoder = native.NativeEncoder(weights_of(64, 2, 80, kind), kind)
    batch = batch_of([1, 2, 3, 3, 7, 8, 9, 15, 30, 70, 70, 71, 150, 280])
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(encoder(batch.input_ids, batch.positions, None, batch))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(other, found[0]) for other in found)
    for start, end in zip(batch.offsets.tolist(), batch.offsets[1:].tolist(), strict=False):
        alone = PackedBatch(
            *(batch.input_ids[start:end], batch.positions[start:end], torch.zeros(end - start, dtype=torch.int64)),
            *(torch.tensor([end - start]), torch.tensor([0, end - start], dtype=torch.int32), (), torch.zeros(1)),
        )
        assert torch.equal(encoder(alone.input_ids, alone.positions, None, alone), found[0][start:end])


def test_no_tokens_and_empty_texts(kind: native.Kind) -> None:
    encoder = native.NativeEncoder(weights_of(48, 3, 96, kind), kind)
    batch = batch_of([0, 0])
    assert encoder(batch.input_ids, batch.positions, None, batch).shape == (0, 48)
    for lengths in ([0, 3, 0], [0] * 9 + [4] * 9 + [0], [0] + [300] * 8, [0, 300, 300, 300]):
        batch = batch_of(lengths)
        full = batch_of([length for length in lengths if length])
        expected = encoder(batch.input_ids, full.positions, None, full)
        assert torch.equal(encoder(batch.input_ids, batch.positions, None, batch), expected)


def test_wrong_input(kind: native.Kind) -> None:
    encoder, batch = native.NativeEncoder(weights_of(48, 3, 96, kind), kind), batch_of([3, 4])
    ids, positions = batch.input_ids, batch.positions
    for wrong in (-1, 50):
        with pytest.raises(InputError, match="expected ids below 50 and positions below 600"):
            encoder(ids.clone().fill_(wrong), positions, None, batch)
    with pytest.raises(InputError, match="beyond its table"):
        encoder(ids, positions + 598, None, batch)
    with pytest.raises(InputError, match="beyond its table"):
        encoder(ids, positions, torch.full_like(ids, 2), batch)
    with pytest.raises(ConfigError, match="expected int64"):
        encoder(ids.int(), positions, None, batch)
    falling = dataclasses.replace(batch, offsets=torch.tensor([0, 9, 7], dtype=torch.int32))
    with pytest.raises(InputError, match="beyond its table"):
        encoder(ids, positions, None, falling)
    with pytest.raises(ConfigError, match="end at the 6 tokens"):
        encoder(ids[:6], positions[:6], None, batch)


def test_sizes_that_are_not_taken(home: Path) -> None:
    assert not native.supports(weights_of(48, 2, 96, "float32"), "float32")  # heads of 24
    assert not native.supports(weights_of(48, 3, 100, "float32"), "float32")
