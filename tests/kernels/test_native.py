"""The encoder in C++ against its definition in double precision, with products in every dtype the processor has."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from minisbert.kernels.cpu_ops import native
from minisbert.kernels.cpu_ops.native import EncoderModules, LayerModules, NativeEncoder
from minisbert.kernels.operations.quantized import QuantizedLinear
from torch import Tensor, nn

from minisbert.errors import ConfigError, InputError
from minisbert.kernels import AttentionSettings, plain
from minisbert.packing import PackedBatch

DTYPES = (torch.float32, torch.bfloat16, torch.int8)
# dim, heads and inner size: whole panels of 48 columns, and panels of 16 and 32 at the end; a panel of two weights
SIZES = [(48, 3, 96), (128, 2, 112), (384, 12, 1536)]
# one text; few texts, which threads share; many, of which each takes some; texts of more tokens than one part; so many
# tokens that int8 weights are packed ahead
TEXTS = [
    [1],
    [13],
    [3, 17],
    [5] * 40,
    [1, 2, 2, 9, 15, 16, 17, 33, 63, 64, 65, 97, 201],
    [300, 520],
    [40] * 39 + [3, 1, 2],
]
BOUNDS = {torch.float32: 6e-6, torch.bfloat16: 3e-2, torch.int8: 1e-1}


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest, with_native: None) -> torch.dtype:
    if not native.available(request.param):
        pytest.skip("the processor has no such product")
    found: torch.dtype = request.param
    return found


def batch_of(lengths: list[int]) -> PackedBatch:
    sizes = torch.tensor(lengths)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    positions = torch.cat([torch.arange(length) for length in lengths])
    index = torch.repeat_interleave(torch.arange(len(lengths)), sizes)
    ids = torch.randint(50, (int(offsets[-1]),))
    order = torch.arange(len(lengths))
    return PackedBatch(ids, positions, index, sizes, offsets.int(), (), order)


def modules_of(dim: int, heads: int, inner: int, dtype: torch.dtype, *, types: int = 2) -> EncoderModules:
    """Modules of two layers with floats, drawn so that values neither vanish nor grow."""
    torch.manual_seed(dim)

    def linear(columns: int, depth: int) -> nn.Linear:
        module = nn.Linear(depth, columns)
        module.weight.data, module.bias.data = torch.randn(columns, depth) / depth**0.5, torch.randn(columns) * 0.1
        return module.to(floats)

    def norm() -> nn.LayerNorm:
        module = nn.LayerNorm(dim, eps=1e-12)
        module.weight.data, module.bias.data = 1 + torch.randn(dim) * 0.1, torch.randn(dim) * 0.1
        return module.to(floats)

    def layer() -> LayerModules:
        square = (linear(dim, dim) for _ in range(4))
        return LayerModules(*square, norm(), linear(inner, dim), linear(dim, inner), norm())

    floats = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
    tables = [nn.Embedding(rows, dim).to(floats) for rows in (50, 600, types)]
    return EncoderModules(tables[0], tables[1], tables[2] if types else None, norm(), (layer(), layer()), heads)


def quantized(modules: EncoderModules) -> EncoderModules:
    """The modules with int8 weights in their linear layers."""
    layers = (
        LayerModules(*(QuantizedLinear.of(part) if isinstance(part, nn.Linear) else part for part in layer))
        for layer in modules.layers
    )
    return modules._replace(layers=tuple(layers))


def encoder_of(modules: EncoderModules, dtype: torch.dtype) -> NativeEncoder:
    return NativeEncoder(quantized(modules) if dtype == torch.int8 else modules)


def exact(modules: EncoderModules, batch: PackedBatch, types: Tensor | None) -> Tensor:
    """The definition in double precision, text by text: (tokens, dim)."""

    def product(x: Tensor, linear: nn.Module) -> Tensor:
        if isinstance(linear, QuantizedLinear):
            return linear.quantized_input(x).double() @ linear.weight().double().T + linear.bias.double()
        return x @ linear.weight.double().T + linear.bias.double()

    def normalized(x: Tensor, norm: nn.Module) -> Tensor:
        return plain.add_norm(x, None, norm.weight.double(), norm.bias.double(), eps=norm.eps)

    hidden = modules.word.weight[batch.input_ids].double() + modules.position.weight[batch.positions].double()
    if modules.token_type is not None:
        types = torch.zeros_like(batch.input_ids) if types is None else types
        hidden = hidden + modules.token_type.weight[types].double()
    hidden = normalized(hidden, modules.norm)
    texts = []
    for x in hidden.split(batch.lengths.tolist()):
        for layer in modules.layers:
            q, k, v = (
                product(x, part).unflatten(1, (modules.heads, -1)).transpose(0, 1)  # (heads, length, dim / heads)
                for part in (layer.query, layer.key, layer.value)
            )
            scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
            attended = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
            x = normalized(product(attended, layer.output) + x, layer.attention_norm)
            x = normalized(product(plain.gelu(product(x, layer.up)), layer.down) + x, layer.output_norm)
        texts.append(x)
    return torch.cat(texts).detach()


@pytest.mark.parametrize(("dim", "heads", "inner"), SIZES)
@pytest.mark.parametrize("lengths", TEXTS)
def test_definition(dtype: torch.dtype, dim: int, heads: int, inner: int, lengths: list[int]) -> None:
    modules, batch = modules_of(dim, heads, inner, dtype), batch_of(lengths)
    encoder = encoder_of(modules, dtype)
    for types in (None, torch.randint(2, (batch.tokens,))):
        got = encoder(batch.input_ids, batch.positions, types, batch)
        expected = exact(modules, batch, types)
        assert got.dtype == torch.float32
        # Values have the size 1. A rounded product is off in single elements more than on the whole.
        assert float((got - expected).norm() / expected.norm()) <= BOUNDS[dtype] / 3
        assert float((got - expected).abs().max()) <= BOUNDS[dtype] * (1 if dtype == torch.float32 else 4)


def layer_of(columns: int, depth: int, dtype: torch.dtype) -> nn.Linear | QuantizedLinear:
    layer = nn.Linear(depth, columns)
    layer.weight.data, layer.bias.data = torch.randn(columns, depth), torch.randn(columns)
    return QuantizedLinear.of(layer, torch.rand(depth) + 0.5) if dtype == torch.int8 else layer.to(dtype)


@pytest.mark.parametrize(("columns", "depth"), [(16, 16), (80, 48), (96, 208), (384, 1536), (1152, 384)])
@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 13, 16, 17, 33, 600])
def test_product(dtype: torch.dtype, columns: int, depth: int, rows: int) -> None:
    torch.manual_seed(rows)
    layer = layer_of(columns, depth, dtype)
    x = torch.randn(rows, depth)
    if isinstance(layer, QuantizedLinear):
        inputs, weight = layer.quantized_input(x), layer.weight()
    else:
        inputs = x = x.to(dtype)
        weight = layer.weight
    expected = inputs.double() @ weight.double().T + layer.bias.double()
    error = (native.linear(x, layer) - expected).abs()
    assert bool((error <= 3e-7 * depth**0.5 * (1 + inputs.double().abs() @ weight.double().abs().T) / 4).all())


def test_a_product_is_the_same_for_any_number_of_rows(dtype: torch.dtype) -> None:
    """Few rows fill the lanes of vectors, many take panels of packed weights: the sums have the same order."""
    torch.manual_seed(0)
    floats = torch.float32 if dtype == torch.int8 else dtype
    for columns, depth in ((16, 16), (80, 48), (96, 208), (384, 384)):
        layer, x = layer_of(columns, depth, dtype), torch.randn(40, depth).to(floats)
        many = native.linear(x, layer)
        for rows in range(1, 41):
            assert torch.equal(native.linear(x[:rows], layer), many[:rows])


def test_a_product_takes_what_it_is_made_for(with_native: None) -> None:
    layer = nn.Linear(32, 16)
    with pytest.raises(ConfigError, match="got x of shape"):
        native.linear(torch.ones(2, 16), layer)
    with pytest.raises(ConfigError, match="got x of shape"):
        native.linear(torch.ones(2, 32).double(), layer)
    for other in (nn.Linear(32, 16, bias=False), nn.Linear(32, 17), nn.Linear(31, 16)):
        with pytest.raises(ConfigError, match="expected a bias, and sizes that 16 divides"):
            native.linear(torch.ones(2, other.in_features), other)


def test_int8_layers_whose_inputs_have_other_factors(with_native: None) -> None:
    if not native.available(torch.int8):
        pytest.skip("the processor has no such product")
    modules, batch = modules_of(64, 2, 80, torch.int8), batch_of([4, 9])
    layers = []
    for layer in modules.layers:
        linear = (layer.query, layer.key, layer.value)
        own = (QuantizedLinear.of(part, torch.rand(64) + 0.5) for part in linear)  # type: ignore[arg-type]
        layers.append(layer._replace(**dict(zip(("query", "key", "value"), own, strict=True))))
    mixed = quantized(modules._replace(layers=tuple(layers)))
    got = NativeEncoder(mixed)(batch.input_ids, batch.positions, None, batch)
    assert float((got - exact(mixed, batch, None)).abs().max()) < 1e-1


@pytest.mark.parametrize("types", [0, 1])
def test_tables_of_types(dtype: torch.dtype, types: int) -> None:
    modules, batch = modules_of(48, 3, 96, dtype, types=types), batch_of([3, 8])
    got = encoder_of(modules, dtype)(batch.input_ids, batch.positions, None, batch)
    expected = exact(modules, batch, None)
    assert float((got - expected).norm() / expected.norm()) <= BOUNDS[dtype] / 3


@pytest.mark.parametrize("more", [[], [90] * 3 + [6]], ids=["some", "many"])
def test_a_text_is_the_same_to_the_bit_in_any_batch(dtype: torch.dtype, more: list[int]) -> None:
    encoder = encoder_of(modules_of(64, 2, 336, dtype), dtype)  # weights of several chunks
    batch = batch_of([*range(1, 41), 70, 70, 71, 150, 280, *more])
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


def test_no_tokens_and_empty_texts(dtype: torch.dtype) -> None:
    encoder = encoder_of(modules_of(48, 3, 96, dtype), dtype)
    batch = batch_of([0, 0])
    assert encoder(batch.input_ids, batch.positions, None, batch).shape == (0, 48)
    for lengths in ([0, 3, 0], [0] * 9 + [4] * 9 + [0], [0] + [300] * 8, [0, 300, 300, 300]):
        batch = batch_of(lengths)
        full = batch_of([length for length in lengths if length])
        expected = encoder(batch.input_ids, full.positions, None, full)
        assert torch.equal(encoder(batch.input_ids, batch.positions, None, batch), expected)


def test_wrong_input(dtype: torch.dtype) -> None:
    encoder, batch = encoder_of(modules_of(48, 3, 96, dtype), dtype), batch_of([3, 4])
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


def test_sizes_that_are_not_taken(with_native: None) -> None:
    for sizes in ((48, 2, 96), (48, 3, 100)):  # heads of 24; an inner size that is not a multiple of 16
        with pytest.raises(native.Unsupported):
            NativeEncoder(modules_of(*sizes, torch.float32))


def test_weights_that_are_not_taken(with_native: None) -> None:
    def refused(change: Callable[[EncoderModules], object]) -> None:
        modules = modules_of(48, 3, 96, torch.float32)
        result = change(modules)
        with pytest.raises(native.Unsupported):
            NativeEncoder(result if isinstance(result, EncoderModules) else modules)

    def layer(modules: EncoderModules, **parts: Any) -> EncoderModules:
        return modules._replace(layers=(modules.layers[0]._replace(**parts), *modules.layers[1:]))

    refused(lambda modules: modules._replace(layers=()))
    refused(lambda modules: layer(modules, activation="tanh"))
    refused(lambda modules: layer(modules, gate=nn.Linear(48, 80)))
    refused(lambda modules: layer(modules, attention=AttentionSettings(2)))
    refused(lambda modules: layer(modules, attention=AttentionSettings(3, key_value_heads=2)))
    refused(lambda modules: layer(modules, attention=AttentionSettings(3, key_value_heads=1)))
    refused(lambda modules: layer(modules, key=nn.Linear(48, 32)))
    refused(lambda modules: layer(modules, down=nn.Sequential(nn.Linear(96, 48))))
    refused(lambda modules: layer(modules, key=QuantizedLinear.of(nn.Linear(48, 48))))
    refused(lambda modules: layer(modules, output_norm=nn.LayerNorm(48, elementwise_affine=False)))
    refused(lambda modules: modules.word.half())
    refused(lambda modules: modules.norm.bfloat16())
    refused(lambda modules: modules.position.to("meta"))
    refused(lambda modules: setattr(modules.layers[1].output.weight, "data", torch.ones(48, 48).t()[:, ::1]))
    refused(lambda modules: modules.layers[1].output.register_forward_hook(lambda *_: None))
    refused(lambda modules: setattr(modules.layers[1].output, "forward", lambda x: x))
