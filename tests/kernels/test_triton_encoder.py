"""The encoder over Triton kernels, and as graphs over buckets, against its plain definition."""

from __future__ import annotations

import ast
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from places import ROOT
from torch import Tensor, nn

pytest.importorskip("triton")

from triton_common import BACKWARD, DEVICE, INTERPRETED, close, difference, on_gpu, poisoned, pytestmark  # noqa: F401

from minisbert import kernels
from minisbert.cuda_graphs import Bucket, Graphs
from minisbert.modules import encoder as encoder_module
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

    def gradients() -> Tensor:
        encoder.zero_grad()
        hidden = encoder(batch)
        (hidden * torch.cos(torch.arange(hidden.numel(), device=DEVICE).view_as(hidden) / 7)).sum().backward()
        return torch.cat([hidden.detach().flatten(), *(weight.grad.flatten() for weight in encoder.parameters())])

    with kernels.use("reference"):
        expected = gradients()
    assert encoder.recordable
    close(gradients(), expected, BACKWARD[torch.float32])


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
    encoder, batch = encoder_of(), batch_of(1, 3, 17, 17)
    whole = encoder(batch)
    with torch.autocast(DEVICE, torch.float16):
        mixed = encoder(batch)
    assert mixed.dtype == torch.float32
    assert 0 < difference(mixed.detach(), whole.detach()) < 2e-2
    mixed.sum().backward()
    assert all(weight.grad is not None and weight.grad.dtype == torch.float32 for weight in encoder.parameters())


class Adapted(nn.Module):
    """A linear layer with a small change beside it, as adapters of low rank put it in place of the layer."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear, self.change = linear, nn.Linear(linear.in_features, linear.out_features, bias=False, device=DEVICE)
        nn.init.normal_(self.change.weight, std=20)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.change(x)


@pytest.mark.parametrize("name", ["attention.query", "attention.output", "feed_forward.up", "feed_forward.down"])
@pytest.mark.parametrize("autocast", [False, True])
def test_modules_put_in_place_of_others_are_called(name: str, autocast: bool) -> None:
    torch.manual_seed(0)
    encoder, batch = encoder_of(), batch_of(1, 3, 17)
    before = encoder(batch).detach()
    parent, _, child = f"layers.0.{name}".rpartition(".")
    setattr(encoder.get_submodule(parent), child, Adapted(encoder.get_submodule(f"layers.0.{name}")))
    assert not encoder.recordable
    with torch.autocast(DEVICE, torch.float16, enabled=autocast):
        got = encoder(batch)
    with kernels.use("reference"):
        expected = encoder(batch)
    close(got.detach(), expected.detach(), 2e-2 if autocast else 1e-5)
    assert difference(got.detach(), before) > 0.03
    got.sum().backward()
    assert all(weight.grad is not None for weight in encoder.parameters())


@pytest.mark.parametrize("name", ["layers.0", "layers.0.attention.norm", "layers.1.feed_forward.up", "embeddings.norm"])
@pytest.mark.parametrize("autocast", [False, True])
def test_hooks_are_called(name: str, autocast: bool) -> None:
    encoder, batch = encoder_of(), batch_of(1, 3, 17)
    before = encoder(batch).detach()

    def change(module: nn.Module, inputs: Any, output: Tensor) -> None:
        with torch.no_grad():
            output.mul_(-10)

    encoder.get_submodule(name).register_forward_hook(change)
    assert not encoder.recordable
    with torch.autocast(DEVICE, torch.float16, enabled=autocast):
        got = encoder(batch).detach()
    with kernels.use("reference"):
        expected = encoder(batch).detach()
    close(got, expected, 2e-2 if autocast else 1e-5)
    assert difference(got, before) > 0.03


@pytest.mark.parametrize(
    "changes",
    [{"model_type": "mpnet", "relative_attention_num_buckets": 8}, {"hidden_act": "relu"}, {"hidden_size": 40}],
)
def test_what_no_kernel_takes(changes: dict[str, object]) -> None:
    encoder, batch = encoder_of(**changes), batch_of(1, 3, 17)
    assert not encoder.recordable
    got = encoder(batch)
    with kernels.use("reference"):
        close(got.detach(), encoder(batch).detach(), 1e-5)


def test_operations_beside_compiled_parts() -> None:
    from minisbert.kernels.triton_ops.operations import TritonAttention

    encoder, batch = encoder_of(), batch_of(1, 3, 17)
    operations = kernels.choose(encoder.embeddings.word.weight, batch, compiled=True)
    assert type(operations) is TritonAttention
    hidden = encoder.embeddings(batch, operations)
    for layer in encoder.layers:
        hidden = layer(hidden, batch, operations, None)
    close(hidden.detach(), encoder(batch).detach(), 1e-5)


def test_dropout_is_drawn_from_the_global_generator() -> None:
    encoder, batch = encoder_of(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5).train(), batch_of(5, 9)

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return encoder(batch).detach()

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def slots_of(encoder: Encoder) -> list[Any]:
    """The memory and the work of each bucket of an encoder's graphs."""
    graphs = encoder_module._GRAPHS[encoder]._graphs
    return list(graphs._slots.values())


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_graphs_follow_batches_and_weights(model_type: str) -> None:
    encoder = encoder_of(model_type=model_type, pad_token_id=1)
    sizes = [(3, 17), (3, 17), (16, 16, 8), (1, 2, 3, 17), (3, 17), (30, 30), (1,), (32, 32)]
    with torch.inference_mode():
        for number, lengths in enumerate(sizes * 2):
            batch = batch_of(*lengths, seed=number, types=number % len(sizes) % 3 == 0)
            if number == len(sizes):
                encoder.layers[0].attention.key.weight.data.mul_(1.5)
                encoder.embeddings.word.weight.data[:, 3] += 1
            close(encoder(batch), encoder._embed(batch), 1e-6)
    assert sum(work._replay is not None for _, work in slots_of(encoder)) >= 4


def test_graphs_of_weights_that_moved_are_dropped() -> None:
    encoder, batch = encoder_of(), batch_of(3, 17)
    norm = encoder.layers[1].feed_forward.norm

    def scale() -> None:
        norm.weight = nn.Parameter(norm.weight.detach() * 2)

    def swap() -> None:
        encoder.layers[0].feed_forward.up = nn.Linear(32, 64, device=DEVICE)

    def widen() -> None:
        norm.eps = 1.0

    with torch.inference_mode():
        for change in (scale, swap, widen, encoder.half):
            before = encoder(batch)
            assert torch.equal(encoder(batch), before)
            with torch.inference_mode(False):
                change()
            got = encoder(batch)
            assert difference(got, before) > 0
            assert torch.equal(got, encoder._embed(batch)[:20])
            assert len(slots_of(encoder)) == 1


def test_graphs_end_with_their_encoder() -> None:
    encoder = encoder_of()
    with torch.inference_mode():
        encoder(batch_of(3, 17))
    graphs = weakref.ref(encoder_module._GRAPHS[encoder])
    del encoder
    assert graphs() is None


def test_what_fills_a_batch_up_changes_nothing() -> None:
    encoder, batch = encoder_of(), batch_of(3, 17)
    with torch.inference_mode():
        first = encoder(batch)
        slot, _ = slots_of(encoder)[0]
        slot.batch.input_ids[batch.tokens :] = 49
        slot.batch.positions[batch.tokens :] = 39
        assert torch.equal(encoder(batch), first)


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_a_filled_batch_has_no_gradients_from_what_fills_it(model_type: str) -> None:
    encoder = encoder_of(model_type=model_type, pad_token_id=1)

    def gradients(given: PackedBatch, _: Tensor | None = None) -> Tensor:
        encoder.zero_grad()
        pooled = kernels.choose(encoder.embeddings.word.weight, given).mean_pool(encoder(given), given)
        (pooled * torch.cos(torch.arange(pooled.numel(), device=DEVICE).view_as(pooled))).sum().backward()
        return torch.cat([weight.grad.flatten() for weight in encoder.parameters()])

    graphs = Graphs(gradients, torch.device(DEVICE), fill_texts=False, record=lambda work: work)
    for seed in range(3):  # more tokens than there are positions
        batch = batch_of(*[17] * 9, seed=seed)
        close(graphs(batch), gradients(batch), 1e-6)


def test_buckets_hold_what_they_are_for() -> None:
    for texts in ([1], [17, 3], [40] * 30, [5] * 200):
        batch = batch_of(*texts)
        bucket = Bucket.of(batch, fill_texts=True)
        assert batch.tokens <= bucket.tokens <= max(64, batch.tokens * 9 / 8 + 64)
        assert batch.texts <= bucket.texts <= 1.3 * batch.texts + 1
        assert batch.max_length <= bucket.longest < 2 * max(batch.max_length, 9)
        assert Bucket.of(batch, fill_texts=False).texts == batch.texts


def test_functions_outside_kernels_have_types() -> None:
    """The type checker accepts untyped functions in these files; only those under triton.jit may be."""
    for path in (ROOT / "kernels" / "triton_ops").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef) or any("jit" in ast.unparse(one) for one in node.decorator_list):
                continue
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            untyped = [one.arg for one in arguments if one.annotation is None and one.arg not in ("self", "cls")]
            assert not untyped, (path.name, node.name, untyped)
            assert node.returns is not None, (path.name, node.name)
