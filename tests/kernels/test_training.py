"""All layers of an encoder in training, in C++, against their definition in float64 and the single operations."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import batch_of, close, dropout_mask, exact_attention
from minisbert.kernels.cpu_ops import fused, library, native, training
from minisbert.kernels.operations.memory import Block
from torch import Tensor, nn

from minisbert import kernels
from minisbert.errors import ConfigError
from minisbert.kernels import AttentionSettings, LayerInTraining, Projections, TrainingMemory
from minisbert.modules.architectures import EncoderConfig
from minisbert.modules.encoder import Encoder
from minisbert.packing import PackedBatch

FORWARD, BACKWARD = 3e-6, 3e-5  # largest difference, as a share of the largest value
HALF = 0.05  # the same in bfloat16, whose numbers have 8 bits


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """New memory holds no numbers: what is not written shows."""
    taken = Block.take
    monkeypatch.setattr(Block, "take", lambda self, size: taken(self, size).fill_(0xFF))
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


SIZES = [  # dim, heads, inner
    (16, 1, 16),
    (32, 2, 48),
    (48, 3, 80),
    (64, 1, 112),
    (144, 3, 208),
    (384, 12, 1536),
]
LENGTHS = [
    [1],
    [2, 3],
    [7, 15, 17, 33],
    [5] * 51 + [9],  # 264 tokens: a span and a little more
    [31, 64, 65, 100, 257, 300],
    [40] * 30,  # more tokens than a stage takes
]


def layers_of(
    dim: int, inner: int, count: int = 2, *, dropout: float = 0.0
) -> tuple[nn.ModuleList, list[LayerInTraining]]:
    """Modules of layers with weights drawn at random, and what they are."""
    torch.manual_seed(3)
    modules = nn.ModuleList()
    found = []
    for _ in range(count):
        square = [nn.Linear(dim, dim) for _ in range(4)]
        up, down = nn.Linear(dim, inner), nn.Linear(inner, dim)
        norms = [nn.LayerNorm(dim, eps=1e-6) for _ in range(2)]
        for norm in norms:
            nn.init.normal_(norm.weight, mean=1, std=0.3)
            nn.init.normal_(norm.bias, std=0.3)
        modules.extend([*square, up, down, *norms])
        drops = (dropout, dropout / 2, dropout / 3)
        found.append(LayerInTraining(Projections(*square[:3]), square[3], norms[0], up, down, norms[1], *drops))
    return modules, found


def exact(
    hidden: Tensor, layers: Sequence[LayerInTraining], heads: int, batch: PackedBatch, seeds: Iterator[int]
) -> Tensor:
    """The definition, under the masks of some seeds."""

    def add_norm(x: Tensor, residual: Tensor, norm: nn.Module, dropout: float) -> Tensor:
        if dropout:
            x = x * dropout_mask(next(seeds), 0, *x.shape, dropout) / (1 - dropout)
        return F.layer_norm(x + residual, x.shape[1:], norm.weight, norm.bias, norm.eps)  # type: ignore[arg-type]

    for layer in layers:
        qkv = torch.cat([projection(hidden) for projection in layer.projections.linears], dim=1)
        attended = exact_attention(qkv, batch, heads, layer.weight_dropout, next(seeds) if layer.weight_dropout else 0)
        hidden = add_norm(layer.output(attended), hidden, layer.attention_norm, layer.attention_dropout)
        inner = F.gelu(layer.up(hidden))
        hidden = add_norm(layer.down(inner), hidden, layer.output_norm, layer.output_dropout)
    return hidden


def seeds_after(seed: int) -> Iterator[int]:
    """The seeds that a run draws after `torch.manual_seed(seed)`."""
    torch.manual_seed(seed)
    return iter([fused.draw_seed() for _ in range(12)])


def slopes(modules: nn.Module, hidden: Tensor, output: Tensor) -> list[Tensor]:
    """The output, and the slopes of a weighted sum of it: of the input and of each parameter that is trained."""
    weights = torch.cos(torch.arange(output.numel(), dtype=torch.float64)).view_as(output).to(output.dtype)
    leaves = [leaf for leaf in (hidden, *modules.parameters()) if leaf.requires_grad]
    return [output.detach(), *torch.autograd.grad(output, leaves, weights)]


def input_of(batch: PackedBatch, dim: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch.tokens, dim).requires_grad_(True)


@pytest.mark.parametrize(("dim", "heads", "inner"), SIZES)
@pytest.mark.parametrize("lengths", LENGTHS, ids=lambda lengths: f"{sum(lengths)}")
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_float32(with_native: None, dim: int, heads: int, inner: int, lengths: list[int], dropout: float) -> None:
    if dim == 384 and sum(lengths) > 300:
        pytest.skip("large; the smaller sizes take these lengths")
    batch = batch_of(lengths)
    modules, layers = layers_of(dim, inner, dropout=dropout)
    hidden = input_of(batch, dim)
    torch.manual_seed(5)
    got = slopes(modules, hidden, training.run_layers(hidden, layers, heads, batch, torch.float32))
    seeds = seeds_after(5)
    modules.double()
    hidden = hidden.detach().double().requires_grad_(True)
    expected = slopes(modules, hidden, exact(hidden, layers, heads, batch, seeds))
    close(got[0], expected[0], FORWARD)
    scale = max(float(value.abs().max()) for value in expected[2:])
    for one, other in zip(got[1:], expected[1:], strict=True):
        # The gradient of a key's bias is 0, so that an error is a share of the largest of all gradients.
        assert float((one - other).abs().max()) <= BACKWARD * max(float(other.abs().max()), 0.01 * scale)


@pytest.mark.parametrize(("dim", "heads", "inner"), SIZES[1:5])
@pytest.mark.parametrize("lengths", LENGTHS, ids=lambda lengths: f"{sum(lengths)}")
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_bfloat16(with_native: None, dim: int, heads: int, inner: int, lengths: list[int], dropout: float) -> None:
    if not native.available(torch.bfloat16):
        pytest.skip("the level that runs has no products in bfloat16")
    batch = batch_of(lengths)
    modules, layers = layers_of(dim, inner, dropout=dropout)
    hidden = input_of(batch, dim)

    def run(dtype: torch.dtype) -> list[Tensor]:
        torch.manual_seed(5)
        return slopes(modules, hidden, training.run_layers(hidden, layers, heads, batch, dtype))

    got, expected = run(torch.bfloat16), run(torch.float32)
    scale = max(float(value.abs().max()) for value in expected[2:])
    for one, other in zip(got, expected, strict=True):
        assert bool(one.isfinite().all())
        assert float((one - other).abs().max()) <= HALF * max(float(other.abs().max()), 0.1 * scale)


def bits(values: Sequence[Tensor]) -> list[bytes]:
    return [value.numpy().tobytes() for value in values]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_do_not_change_a_bit(with_native: None, dtype: torch.dtype) -> None:
    if not native.available(dtype):
        pytest.skip(f"the level that runs has no products in {dtype}")
    batch = batch_of([3, 40, 40, 41, 90, 130, 257, 400, 500])
    modules, layers = layers_of(32, 48, dropout=0.2)
    hidden, before, found = input_of(batch, 32), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            torch.manual_seed(5)
            found.append(bits(slopes(modules, hidden, training.run_layers(hidden, layers, 2, batch, dtype))))
    finally:
        torch.set_num_threads(before)
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize("frozen", ["first layer", "weights", "biases", "key", "norms", "all but one"])
def test_frozen_parameters(with_native: None, frozen: str) -> None:
    batch, heads = batch_of([4, 9, 30]), 2
    modules, layers = layers_of(32, 48)
    hidden = input_of(batch, 32)
    all_of_it = dict(modules.named_parameters())
    names = {
        "first layer": [name for name in all_of_it if int(name.split(".")[0]) < 8],
        "weights": [name for name in all_of_it if name.endswith("weight")],
        "biases": [name for name in all_of_it if name.endswith("bias")],
        "key": ["1.weight", "1.bias"],
        "norms": [name for name, value in all_of_it.items() if value.ndim == 1 and int(name.split(".")[0]) % 8 > 5],
        "all but one": [name for name in all_of_it if name != "12.weight"],
    }[frozen]
    trained = slopes(modules, hidden, training.run_layers(hidden, layers, heads, batch, torch.float32))
    expected = dict(zip(all_of_it, trained[2:], strict=True))
    for name in names:
        all_of_it[name].requires_grad_(False)
    hidden = hidden.detach()
    output = training.run_layers(hidden, layers, heads, batch, torch.float32)
    got = slopes(modules, hidden, output)[1:]
    for name, value in zip([name for name in all_of_it if name not in names], got, strict=True):
        assert torch.equal(value, expected[name]), name


def test_memory_is_used_again_when_nothing_holds_it(with_native: None) -> None:
    batch, memory = batch_of([4, 9, 30]), TrainingMemory()
    modules, layers = layers_of(32, 48)
    hidden = input_of(batch, 32)

    def run() -> Tensor:
        return training.run_layers(hidden, layers, 2, batch, torch.float32, memory)

    expected = bits(slopes(modules, hidden, run()))
    block = memory.kept._memory
    assert block is not None
    first, second = run(), run()  # both are alive, so that they share nothing
    assert bits(slopes(modules, hidden, first)) == expected
    assert bits(slopes(modules, hidden, second)) == expected
    kept = run()
    kept.sum().backward(retain_graph=True)
    other = run()  # does not touch what `kept` still needs
    assert bits(slopes(modules, hidden, kept)) == expected
    assert bits(slopes(modules, hidden, other)) == expected
    assert memory.kept._memory is block
    memory.release()
    assert memory.kept._memory is None


def encoder_of(**settings: object) -> Encoder:
    torch.manual_seed(2)
    encoder = Encoder(EncoderConfig(50, 32, 2, 2, 48, 64, **settings))  # type: ignore[arg-type]
    encoder.reset_parameters()
    return encoder


def calls_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of layers that run at once from now on."""
    found: list[int] = []
    whole = training.run_layers
    monkeypatch.setattr(training, "run_layers", lambda *a: found.append(len(a[1])) or whole(*a))
    return found


def gradients(encoder: Encoder, batch: PackedBatch) -> list[Tensor]:
    torch.manual_seed(9)
    encoder.zero_grad()
    output = encoder(batch)
    output.cos().sum().backward()
    return [output.detach(), *(value.grad.clone() for value in encoder.parameters() if value.grad is not None)]


def test_an_encoder_trains_with_it(with_native: None, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, batch = encoder_of(), batch_of([3, 8, 8, 20])
    monkeypatch.setattr(training.Whole, "layers", kernels.Plain.layers)
    single = gradients(encoder, batch)
    monkeypatch.undo()
    calls = calls_of(monkeypatch)
    whole = gradients(encoder, batch)
    assert calls == [2]
    for one, other in zip(whole, single, strict=True):
        close(one, other, BACKWARD)
    with torch.no_grad():
        encoder(batch)
    assert calls == [2]
    assert encoder._memory.kept._memory is not None
    encoder.eval()
    assert encoder._memory.kept._memory is None
    gradients(encoder, batch)  # without dropout
    assert calls == [2, 2]


@pytest.mark.parametrize(
    "change", ["hook", "swap", "patch", "subclass", "activation", "frozen", "norm_first", "float64"]
)
def test_a_changed_encoder_runs_layer_by_layer(with_native: None, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    encoder, batch = encoder_of(norm_first=change == "norm_first"), batch_of([3, 8, 8, 20])
    layer = encoder.layers[1]
    seen: list[object] = []
    if change == "hook":
        layer.attention.query.register_forward_hook(lambda *a: seen.append(a))
    elif change == "swap":
        layer.attention.query = nn.Sequential(layer.attention.query)
    elif change == "patch":
        plain = layer.feed_forward.up.forward
        layer.feed_forward.up.forward = lambda x: seen.append(x) or plain(x)
    elif change == "subclass":
        layer.feed_forward.up.__class__ = type(
            "Other", (nn.Linear,), {"forward": lambda self, x: F.linear(x, self.weight)}
        )
    elif change == "activation":
        layer.feed_forward.activation = torch.tanh
    elif change == "frozen":
        encoder.requires_grad_(False)
    elif change == "float64":
        encoder.double()
    calls = calls_of(monkeypatch)
    if change == "frozen":
        encoder(batch)
    else:
        gradients(encoder, batch)
    assert not calls
    assert seen or change not in ("hook", "patch")


def test_offsets_that_do_not_fit(with_native: None) -> None:
    _, layers = layers_of(32, 48)
    with pytest.raises(ConfigError, match="expected them to end at the 4 tokens"):
        training.run_layers(torch.zeros(4, 32), layers, 2, batch_of([3]), torch.float32)


def test_no_level_no_layers(without_native: None) -> None:
    assert library.functions() is None
    assert not native.available(torch.float32)
    assert AttentionSettings(2).bidirectional  # BERT's, which all of this is about
    gradients(encoder_of(), batch_of([3, 8]))


def test_combinations_of_sizes_that_are_refused(with_native: None) -> None:
    for (dim, heads, inner), tokens in itertools.product([(24, 1, 16), (16, 1, 24), (16, 3, 16), (512, 2, 16)], [5]):
        _, layers = layers_of(dim, inner, 1)
        assert not training.takes(layers, heads, torch.zeros(tokens, dim)), (dim, heads, inner)


def test_threads_that_share_an_encoder(with_native: None) -> None:
    encoder, batch = encoder_of(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), batch_of([3, 8, 20])
    expected = encoder(batch).detach()
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda _: encoder(batch), range(24)))
    assert all(torch.equal(output, expected) for output in outputs)
    alone = torch.autograd.grad(outputs[0].cos().sum(), list(encoder.layers.parameters()))
    for output in outputs[1:]:
        again = torch.autograd.grad(output.cos().sum(), list(encoder.layers.parameters()))
        assert bits(again) == bits(alone)


def test_copies_of_an_encoder_share_no_memory(with_native: None) -> None:
    encoder = encoder_of()
    gradients(encoder, batch_of([3, 8]))
    for copied in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert copied._memory is not encoder._memory
        gradients(copied, batch_of([3, 8]))
