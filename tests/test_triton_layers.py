"""A whole layer of the encoder with Triton kernels around its products, against its modules."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from triton_common import DEVICE, INTERPRETED, batch_of, close, drawn, poisoned, pytestmark, slopes  # noqa: F401

from minisbert import kernels
from minisbert.modules.architectures import encoder_config
from minisbert.modules.encoder import EncoderLayer

DIM = 32


def layer_of() -> EncoderLayer:
    config = encoder_config({"model_type": "bert", **_SIZES})
    layer = EncoderLayer(config)
    torch.manual_seed(0)
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return layer.to(DEVICE).eval()


_SIZES = {
    "hidden_size": DIM,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 64,
    "hidden_act": "gelu",
    "vocab_size": 10,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
}


def test_layer() -> None:
    from minisbert.kernels.triton_ops import layers

    assert layers.supports(DIM, 2)
    layer, batch = layer_of(), batch_of([1, 3, 17, 17])
    hidden = drawn(batch.tokens, DIM)
    with kernels.use("reference"):
        expected = slopes(lambda x: layer(x, batch, None), hidden)
    right = torch.cat([weight.grad.flatten() for weight in layer.parameters()])
    layer.zero_grad()
    got = slopes(lambda x: layer._fused(x, batch, layers), hidden)
    for mine, theirs in zip(got, expected, strict=True):
        close(mine, theirs, 1e-5)
    close(torch.cat([weight.grad.flatten() for weight in layer.parameters()]), right, 1e-5)


@pytest.mark.skipif(INTERPRETED, reason="autocast of products needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_layer_under_autocast_keeps_the_residual_stream_in_float32(dtype: torch.dtype) -> None:
    layer, batch = layer_of(), batch_of([1, 3, 17, 17])
    hidden = drawn(batch.tokens, DIM)
    with kernels.use("reference"):
        expected = layer(hidden, batch, None)
    with torch.autocast("cuda", dtype):
        got = layer(hidden, batch, None)
    assert got.dtype == torch.float32
    close(got, expected, 5e-2)


@pytest.mark.skipif(INTERPRETED, reason="the dispatch goes by the device")
def test_dispatch() -> None:
    from minisbert.kernels.triton_ops import layers

    assert kernels.fused(drawn(4, DIM), heads=2) is layers
    assert kernels.fused(drawn(4, DIM).double(), heads=2) is None
    with kernels.use("reference"):
        assert kernels.fused(drawn(4, DIM), heads=2) is None
