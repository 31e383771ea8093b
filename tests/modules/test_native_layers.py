"""Encoders whose layers are not BERT's, in C++, against the definitions in plain PyTorch."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from minisbert.kernels.cpu_ops import native
from torch import Tensor, nn

from minisbert import kernels
from minisbert.kernels import AttentionSettings, QuantizedLinear, activation_name
from minisbert.modules.architectures import EncoderConfig
from minisbert.modules.encoder import Encoder
from minisbert.packing import PackedBatch, pack
from minisbert.text import TokenizedTexts

LAYERS = 3


def attention(heads: int, *settings: dict[str, Any]) -> dict[str, Any]:
    """The attention of each layer; the last settings are those of all that follow."""
    kinds = [AttentionSettings(heads, **settings[min(layer, len(settings) - 1)]) for layer in range(LAYERS)]
    return {"attention": tuple(kinds)}


# Each switch alone, then as models combine them. Heads have 16 or 48 elements: halves of one vector and a part of one.
KINDS: dict[str, Callable[[int], dict[str, Any]]] = {
    "norm first": lambda heads: {"norm_first": True},
    "rms norm": lambda heads: {"rms_norm": True},
    "no biases": lambda heads: {"biases": frozenset()},
    "gated": lambda heads: {"gated": True},
    "tanh gelu": lambda heads: {"hidden_act": "gelu_pytorch_tanh"},
    "relu": lambda heads: {"hidden_act": "relu"},
    "silu": lambda heads: {"hidden_act": "silu", "gated": True},
    "no token types": lambda heads: {"type_vocab_size": 0},
    "position offset": lambda heads: {"position_offset": 2, "pad_token_id": 1},
    "rotary": lambda heads: attention(heads, {"rotary_base": 10_000.0}),
    "windows": lambda heads: attention(heads, {"window": 0}, {"window": 5}, {"window": 33}),
    "causal": lambda heads: attention(heads, {"causal": True}),
    "causal windows": lambda heads: attention(heads, {"causal": True, "window": 7}, {}),
    "one key head": lambda heads: attention(heads, {"key_value_heads": 1}),
    "grouped heads": lambda heads: attention(heads, {"key_value_heads": heads // 2}, {}),
    "relative bias": lambda heads: {"relative_attention_buckets": 32},
    "relative bias and windows": lambda heads: {
        "relative_attention_buckets": 9,
        **attention(heads, {"window": 40, "causal": True}),
    },
    "modernbert": lambda heads: {
        **{"norm_first": True, "biases": frozenset(), "gated": True, "type_vocab_size": 0, "layer_norm_eps": 1e-5},
        **attention(heads, {"rotary_base": 160_000.0}, {"rotary_base": 10_000.0, "window": 3}),
    },
    "qwen": lambda heads: {
        **{"norm_first": True, "rms_norm": True, "biases": frozenset(), "gated": True, "hidden_act": "silu"},
        **{"type_vocab_size": 0, "layer_norm_eps": 1e-6},
        **attention(heads, {"rotary_base": 10_000.0, "causal": True, "key_value_heads": heads // 2}),
    },
}
SIZES = {16: (64, 4, 80), 48: (96, 2, 208)}  # of a head; dim, heads and inner size
LENGTHS = [(1,), (2,), (15,), (17,), (33,), (130,), (1, 2, 15, 17, 33, 130, 400), tuple(range(1, 34)) * 2]
DTYPES = (torch.float32, torch.bfloat16, torch.int8)


def batch_of(*lengths: int) -> PackedBatch:
    ids = np.random.default_rng(0).integers(2, 50, sum(lengths)).astype(np.int32)
    return pack(TokenizedTexts(ids, np.array(lengths, np.int64), 0))


def encoder_of(kind: str, dtype: torch.dtype, head: int = 16) -> Encoder:
    """An encoder with random weights, under which values neither vanish nor grow."""
    dim, heads, inner = SIZES[head]
    sizes = {"hidden_size": dim, "num_attention_heads": heads, "intermediate_size": inner}
    config = EncoderConfig(
        **{
            "vocab_size": 50,
            "num_hidden_layers": LAYERS,
            "max_position_embeddings": 1200,
            **sizes,
            **KINDS[kind](heads),
        }
    )
    encoder = Encoder(config).eval()
    torch.manual_seed(dim)
    for module in encoder.modules():
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if isinstance(weight, Tensor):
            spread = 0.1 if weight.dim() == 1 else 1.0 if isinstance(module, nn.Embedding) else weight.shape[1] ** -0.5
            nn.init.normal_(weight, mean=float(weight.dim() == 1), std=spread)
        if isinstance(bias, Tensor):
            nn.init.normal_(bias, std=0.1)
    if dtype == torch.int8:
        encoder.quantize(batch_of(30, 40, 50))
    return encoder.to(torch.bfloat16) if dtype == torch.bfloat16 else encoder


def hidden(encoder: Encoder, batch: PackedBatch, mode: kernels.Mode = "auto") -> Tensor:
    with kernels.use(mode), torch.no_grad():
        return encoder(batch).float()


def bound(encoder: Encoder) -> bool:
    """True if the last pass ran in C++."""
    found = encoder._native._bound
    return found is not None and found[1] is not None


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest, with_native: None) -> torch.dtype:
    if not native.available(request.param):
        pytest.skip("the processor has no such product")
    found: torch.dtype = request.param
    return found


def assert_as_defined(encoder: Encoder, batch: PackedBatch, dtype: torch.dtype) -> Tensor:
    """Compare with the definitions; returns the hidden states."""
    got, expected = hidden(encoder, batch), hidden(encoder, batch, "reference")
    cosines = F.cosine_similarity(got.double(), expected.double())
    if dtype == torch.float32:
        assert float((got - expected).norm() / expected.norm()) <= 1e-6
        assert float((got - expected).abs().max()) <= 6e-6  # of values up to 5
    # A number that is rounded to another int8 is off by 1 in 127.
    assert float(cosines.min()) >= (0.9998 if dtype != torch.int8 else 0.9995)
    return got


@pytest.mark.parametrize("head", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_definition(kind: str, head: int, dtype: torch.dtype) -> None:
    encoder = encoder_of(kind, dtype, head)
    for lengths in LENGTHS:
        got = assert_as_defined(encoder, batch_of(*lengths), dtype)
        assert bound(encoder)
        assert got.shape == (sum(lengths), SIZES[head][0])


@pytest.mark.parametrize("kind", ["modernbert", "qwen", "relative bias"])
def test_a_text_of_many_blocks(kind: str, with_native: None) -> None:
    """So long that few queries are worked on at a time."""
    encoder = encoder_of(kind, torch.float32)
    assert_as_defined(encoder, batch_of(3, 1101), torch.float32)
    assert bound(encoder)


@pytest.mark.parametrize("kind", ["modernbert", "qwen", "causal windows"])
def test_a_text_is_the_same_to_the_bit_in_any_batch(kind: str, dtype: torch.dtype) -> None:
    encoder = encoder_of(kind, dtype)
    batch = batch_of(*range(1, 41), 70, 70, 71, 150, 280)
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(hidden(encoder, batch))
        alone = torch.cat([hidden(encoder, part) for part in batch.cut(1)])
    finally:
        torch.set_num_threads(threads)
    assert bound(encoder)
    assert all(torch.equal(other, found[0]) for other in (*found[1:], alone))


def test_windows_that_cover_a_text_change_nothing(with_native: None) -> None:
    encoder, wide = encoder_of("rotary", torch.float32), encoder_of("rotary", torch.float32)
    for layer in wide.layers:
        layer.attention.settings = dataclasses.replace(layer.attention.settings, window=32)
    assert torch.equal(hidden(wide, batch_of(9, 33)), hidden(encoder, batch_of(9, 33)))
    assert not torch.equal(hidden(wide, batch_of(34)), hidden(encoder, batch_of(34)))


def test_int8_gates_whose_inputs_have_other_factors(with_native: None) -> None:
    if not native.available(torch.int8):
        pytest.skip("the processor has no such product")
    encoder, floats = encoder_of("modernbert", torch.int8), encoder_of("modernbert", torch.float32)
    torch.manual_seed(0)
    for layer, other in zip(encoder.layers, floats.layers, strict=True):
        layer.feed_forward.gate = QuantizedLinear.of(other.feed_forward.gate, torch.rand(64) + 0.5)
        layer.attention.key = QuantizedLinear.of(other.attention.key, torch.rand(64) + 0.5)
    assert_as_defined(encoder, batch_of(3, 20, 20), torch.int8)
    assert bound(encoder)


def in_layers(change: Callable[[nn.Module, nn.Module], object]) -> Callable[[Encoder], None]:
    def changed(encoder: Encoder) -> None:
        for layer in encoder.layers:
            change(layer.attention, layer.feed_forward)

    return changed


def set_attention(**settings: Any) -> Callable[[Encoder], None]:
    return in_layers(
        lambda attention, _: setattr(attention, "settings", dataclasses.replace(attention.settings, **settings))
    )


def doubled(part: nn.Module, given: object, made: Tensor) -> Tensor:
    return made * 2


class Halved(nn.RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


# What changes in a bound encoder, and whether the C++ runs what it is then.
CHANGES: dict[str, tuple[Callable[[Encoder], object], bool]] = {
    "window": (set_attention(window=2), True),
    "a window and causal": (set_attention(window=2, causal=True), True),
    "rotary base": (set_attention(rotary_base=500.0), True),
    "no rotation": (set_attention(rotary_base=None), True),
    "activation": (in_layers(lambda _, feed: setattr(feed, "activation", F.relu)), True),
    "own activation": (in_layers(lambda _, feed: setattr(feed, "activation", torch.tanh)), False),
    "no gate": (in_layers(lambda _, feed: setattr(feed, "gate", None)), True),
    "hooked gate": (in_layers(lambda _, feed: feed.gate.register_forward_hook(doubled)), False),
    "patched gate": (in_layers(lambda _, feed: setattr(feed.gate, "forward", lambda x: x.new_ones(len(x), 80))), False),
    "bias": (in_layers(lambda _, feed: setattr(feed.gate, "bias", nn.Parameter(torch.ones(80)))), True),
    "no norm": (in_layers(lambda attention, _: setattr(attention, "norm", nn.Identity())), True),
    "hooked last norm": (lambda encoder: encoder.norm.register_forward_hook(doubled), False),
    "other last norm": (lambda encoder: setattr(encoder, "norm", nn.LayerNorm(64)), True),
    "norm of another class": (lambda encoder: setattr(encoder, "norm", Halved(64, eps=1e-5)), False),
    "eps": (in_layers(lambda _, feed: setattr(feed.norm, "eps", 0.5)), True),
    "norm last in one block": (in_layers(lambda attention, _: setattr(attention, "norm_first", False)), False),
    "norm last": (
        lambda encoder: [
            setattr(encoder, "norm", None),
            *(setattr(part, "norm_first", False) for layer in encoder.layers for part in layer.children()),
        ],
        True,
    ),
    "table of positions": (lambda encoder: setattr(encoder.embeddings, "position", nn.Embedding(1200, 64)), True),
    "relative bias": (lambda encoder: setattr(encoder, "relative_attention_bias", nn.Embedding(32, 4)), True),
}


@pytest.mark.parametrize("kind", ["modernbert", "qwen"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_is_followed(change: str, kind: str, with_native: None) -> None:
    encoder, batch = encoder_of(kind, torch.float32), batch_of(1, 9, 40)
    before = hidden(encoder, batch)
    assert bound(encoder)
    apply, taken = CHANGES[change]
    torch.manual_seed(1)
    apply(encoder)
    got = assert_as_defined(encoder, batch, torch.float32)
    assert bound(encoder) == taken
    assert not torch.equal(got, before)


def test_an_int8_layer_that_gets_a_bias(with_native: None) -> None:
    if not native.available(torch.int8):
        pytest.skip("the processor has no such product")
    encoder, batch = encoder_of("modernbert", torch.int8), batch_of(5, 30)
    before = hidden(encoder, batch)
    encoder.layers[0].feed_forward.up.bias = nn.Parameter(torch.ones(80))
    assert not torch.equal(assert_as_defined(encoder, batch, torch.int8), before)
    assert bound(encoder)


def test_what_is_not_read(with_native: None) -> None:
    """Heads of other sizes in a layer, norms without weights or eps: Python computes them."""
    for change in (
        lambda encoder: setattr(encoder.layers[1].attention, "settings", AttentionSettings(2)),
        lambda encoder: setattr(encoder.layers[1].attention, "settings", AttentionSettings(4, key_value_heads=2)),
        lambda encoder: setattr(encoder, "norm", nn.LayerNorm(64, elementwise_affine=False)),
        lambda encoder: setattr(encoder, "norm", nn.RMSNorm(64)),
        lambda encoder: setattr(encoder.layers[0].attention, "query", nn.Identity()),
    ):
        encoder = encoder_of("modernbert", torch.float32)
        change(encoder)
        assert_as_defined(encoder, batch_of(1, 9, 40), torch.float32)
        assert not bound(encoder)


@pytest.mark.parametrize("activation", [F.gelu, partial(F.gelu, approximate="tanh"), F.relu, F.silu])
def test_activations_have_the_names_of_kernels(activation: Callable[[Tensor], Tensor]) -> None:
    name = activation_name(activation)
    assert name in native.ACTIVATION_NAMES
    assert activation_name(copy.deepcopy(activation)) == name


def test_activations_that_kernels_do_not_know() -> None:
    for activation in (torch.tanh, partial(F.gelu, approximate="none"), partial(F.silu, inplace=True), lambda x: x):
        assert activation_name(activation) is None


def test_extreme_values_of_activations(with_native: None) -> None:
    """Of large inputs, positive and negative, where exponential functions overflow."""
    for kind in ("tanh gelu", "relu", "silu"):
        encoder = encoder_of(kind, torch.float32)
        for layer in encoder.layers:
            layer.feed_forward.up.weight.data.mul_(300)
        batch = batch_of(1, 9, 40)
        got, expected = hidden(encoder, batch), hidden(encoder, batch, "reference")
        assert bound(encoder)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
