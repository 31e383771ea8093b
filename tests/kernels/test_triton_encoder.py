"""The encoder as one operation, and as graphs over buckets, against its modules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from triton_common import BACKWARD, DEVICE, INTERPRETED, close, on_gpu, poisoned, pytestmark, recorded  # noqa: F401

from minisbert import kernels
from minisbert.kernels.graphs import Bucket
from minisbert.modules.architectures import encoder_config
from minisbert.modules.encoder import Encoder
from minisbert.packing import PackedBatch, pack
from minisbert.text import TokenizedTexts

pytestmark = [*pytestmark, pytest.mark.usefixtures("on_gpu")]

CONFIG = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "vocab_size": 50,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
}


def encoder_of(dtype: torch.dtype = torch.float32, **changes: object) -> Encoder:
    encoder = Encoder(encoder_config({**CONFIG, **changes}))
    torch.manual_seed(0)
    for weight in encoder.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return encoder.to(DEVICE, dtype).eval()


def batch_of(*lengths: int, types: bool = False, seed: int = 0) -> PackedBatch:
    draw = np.random.default_rng(seed)
    tokens = sum(lengths)
    kinds = draw.integers(0, 2, tokens).astype(np.int32) if types else None
    ids = draw.integers(0, 50, tokens).astype(np.int32)
    return pack(TokenizedTexts(ids, np.array(lengths, np.int64), 0, kinds)).to(DEVICE)


@pytest.mark.parametrize("types", [False, True])
@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_derivatives(model_type: str, types: bool) -> None:
    encoder, batch = encoder_of(model_type=model_type, pad_token_id=1), batch_of(1, 3, 17, 17, types=types)

    def slopes() -> Tensor:
        encoder.zero_grad()
        hidden = encoder(batch)
        (hidden * torch.cos(torch.arange(hidden.numel(), device=DEVICE).view_as(hidden) / 7)).sum().backward()
        return torch.cat([hidden.detach().flatten(), *(weight.grad.flatten() for weight in encoder.parameters())])

    with kernels.use("reference"):
        expected = slopes()
    assert encoder.in_one
    close(slopes(), expected, BACKWARD[torch.float32])


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 1e-5), (torch.float16, 1e-2)] + [(torch.bfloat16, 8e-2)] * (not INTERPRETED)
)
def test_inference(dtype: torch.dtype, bound: float) -> None:
    encoder, batch = encoder_of(dtype), batch_of(1, 3, 17, 17, types=True)
    with kernels.use("reference"), torch.no_grad():
        expected = encoder_of().to(torch.float64)(batch)
    with torch.inference_mode():
        # Rounding the weights is not the encoder's doing, so the bounds of half precision are wide.
        close(encoder(batch), expected, bound)


def test_mixed_precision_keeps_the_stream_in_float32() -> None:
    from minisbert.kernels.triton_ops.encoder import encode

    encoder, batch = encoder_of(), batch_of(1, 3, 17, 17)
    weights = encoder.weights()
    whole = encode(weights, batch)
    mixed = encode(weights, batch, dtype=torch.float16)
    assert mixed.dtype == torch.float32
    close(mixed.detach(), whole.detach(), 2e-2)
    mixed.sum().backward()
    assert all(weight.grad is not None and weight.grad.dtype == torch.float32 for weight in encoder.parameters())


def test_dropout_is_drawn_from_the_global_generator() -> None:
    encoder, batch = encoder_of(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5).train(), batch_of(5, 9)

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return encoder(batch).detach()

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_graphs_follow_batches_and_weights() -> None:
    from minisbert.kernels.triton_ops.encoder import GpuEncoder, encode

    encoder = encoder_of()
    run = GpuEncoder(encoder.weights(), record=recorded)
    sizes = [(3, 17), (3, 17), (16, 16, 8), (1, 2, 3, 17), (3, 17), (30, 30), (1,)]
    with torch.inference_mode():
        for number, lengths in enumerate(sizes * 2):
            batch = batch_of(*lengths, seed=number, types=number % len(sizes) % 3 == 0)
            if number == len(sizes):
                encoder.layers[0].attention.key.weight.data.mul_(1.5)
                encoder.embeddings.word.weight.data.mul_(0.5)
            got = run(batch.input_ids, batch.positions, batch.token_types, batch)
            close(got, encode(encoder.weights(), batch), 1e-6)
    assert sum(work._replay is not None for _, work in run._graphs._slots.values()) >= 4


def test_what_fills_a_batch_up_changes_nothing() -> None:
    from minisbert.kernels.triton_ops.encoder import GpuEncoder

    run = GpuEncoder(encoder_of().weights(), record=recorded)
    batch = batch_of(3, 17)
    with torch.inference_mode():
        first = run(batch.input_ids, batch.positions, batch.token_types, batch)
        slot, _ = next(iter(run._graphs._slots.values()))
        slot.batch.input_ids[batch.tokens :] = 49
        slot.batch.positions[batch.tokens :] = 39
        assert torch.equal(run(batch.input_ids, batch.positions, batch.token_types, batch), first)


def test_a_filled_batch_has_no_slopes_from_what_fills_it() -> None:
    encoder = encoder_of()
    batch = batch_of(3, 17)

    def slopes(given: PackedBatch) -> Tensor:
        encoder.zero_grad()
        hidden = encoder(given)
        pooled = kernels.choose(hidden, given).mean_pool(hidden, given)[:2]
        (pooled * torch.cos(torch.arange(pooled.numel(), device=DEVICE).view_as(pooled))).sum().backward()
        return torch.cat([weight.grad.flatten() for weight in encoder.parameters()])

    more = torch.arange(12, device=DEVICE) % 7
    filled = replace(
        batch,
        input_ids=torch.cat([batch.input_ids, more]),
        positions=torch.cat([batch.positions, more]),
        text_index=torch.cat([batch.text_index, torch.zeros_like(more)]),
    )
    close(slopes(filled), slopes(batch), 1e-6)


def test_buckets_hold_what_they_are_for() -> None:
    for texts in ([1], [17, 3], [40] * 30, [5] * 200):
        batch = batch_of(*texts)
        bucket = Bucket.of(batch, fill_texts=True)
        assert batch.tokens <= bucket.tokens <= max(64, batch.tokens * 9 / 8 + 64)
        assert batch.texts <= bucket.texts <= 1.3 * batch.texts + 1
        assert batch.max_length <= bucket.longest < 2 * max(batch.max_length, 9)
        assert Bucket.of(batch, fill_texts=False).texts == batch.texts
