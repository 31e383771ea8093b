"""`encode` gives what the weights say now, however they were changed: no copy of them outlives a call."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tiny_models
import torch
import torch.nn.functional as F
from common import WORDS
from minisbert.kernels.cpu_ops import native, onednn
from torch import nn
from torch.nn.utils import parametrize, prune

from minisbert import SentenceTransformer, kernels
from minisbert.kernels import AttentionSettings, QuantizedLinear
from minisbert.modules.encoder import Encoder

_DRAW = random.Random(5)
LARGE = [" ".join(_DRAW.choices(WORDS, k=_DRAW.randint(0, 30))) for _ in range(60)]
SMALL = LARGE[:1]
Change = Callable[[SentenceTransformer], object]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that the encoder in C++ takes: its heads have 16 elements."""
    return tiny_models.build(tmp_path_factory.mktemp("wide") / "bert", "bert", dim=64)


@pytest.fixture(params=["with_native", "without_native"])
def built(request: pytest.FixtureRequest) -> bool:
    request.getfixturevalue(request.param)
    return bool(request.param == "with_native")


def load(folder: Path, dtype: Any = "float32") -> SentenceTransformer:
    if dtype == "bfloat16" and not onednn.bfloat16_available():
        pytest.skip("the processor has no products in bfloat16")
    return SentenceTransformer(folder, device="cpu", truncation="count", dtype=dtype)


def encoder_of(model: SentenceTransformer) -> Encoder:
    encoder = model.transformer.auto_model
    assert isinstance(encoder, Encoder)
    return encoder


def in_native_code(model: SentenceTransformer) -> bool:
    bound = encoder_of(model)._native._bound
    return bound is not None and bound[1] is not None


def up(model: SentenceTransformer, layer: int = 0) -> Any:
    return encoder_of(model).layers[layer].feed_forward.up


def attention(model: SentenceTransformer, layer: int = 0) -> Any:
    return encoder_of(model).layers[layer].attention


def add(weight: torch.Tensor, index: Any, value: float) -> None:
    weight.data[index] += value


def weight_of(module: nn.Module) -> torch.Tensor:
    """The weight of a linear layer; packed, in int8."""
    weight: torch.Tensor = module.packed if isinstance(module, QuantizedLinear) else module.weight
    return weight


def in_place(model: SentenceTransformer) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)


def fused_step(model: SentenceTransformer) -> None:
    weights = [weight for weight in model.parameters() if weight.dtype == torch.float32] or list(model.parameters())
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    torch.optim.AdamW(weights, lr=0.1, fused=True).step()


def other_state(model: SentenceTransformer) -> dict[str, torch.Tensor]:
    return {name: value * 1.5 if value.is_floating_point() else value for name, value in model.state_dict().items()}


def swapped(model: SentenceTransformer) -> None:
    new = copy.deepcopy(attention(model).query)
    new.bias.data *= -1
    new.bias.data += 1
    attention(model).query = new


# In any dtype, int8 included.
VALUES: dict[str, Change] = {
    "one element": lambda model: add(weight_of(up(model)), (3, 45), 40),
    "one column": lambda model: add(weight_of(up(model)), (slice(None), 44), 40),
    "one row": lambda model: add(weight_of(attention(model).value), 2, 3),
    "a bias": lambda model: add(attention(model).output.bias, 0, 3),
    "a norm": lambda model: add(attention(model, 1).norm.weight, 1, 3),
    "the words": lambda model: add(encoder_of(model).embeddings.word.weight, slice(None), torch.arange(64) / 9),
    "the positions": lambda model: add(encoder_of(model).embeddings.position.weight, slice(None), torch.arange(64) / 9),
    "in place": in_place,
    "fused AdamW": fused_step,
    "load_state_dict": lambda model: model.load_state_dict(other_state(model)),
    "load_state_dict, assigned": lambda model: model.load_state_dict(other_state(model), assign=True),
    "a swapped module": swapped,
    "eps": lambda model: setattr(attention(model).norm, "eps", 0.5),
    "heads": lambda model: [setattr(attention(model, i), "settings", AttentionSettings(2)) for i in range(2)],
    "heads of one layer": lambda model: setattr(attention(model), "settings", AttentionSettings(2)),
    "one layer less": lambda model: encoder_of(model).layers.pop(1),
    "one layer more": lambda model: encoder_of(model).layers.append(copy.deepcopy(encoder_of(model).layers[0])),
    "layers exchanged": lambda model: encoder_of(model).layers.insert(0, encoder_of(model).layers.pop(1)),
}


def narrowed(model: SentenceTransformer, layers: tuple[int, ...] = (0, 1)) -> None:
    for part in (encoder_of(model).layers[layer].feed_forward for layer in layers):
        part.up.weight.data, part.up.bias.data = part.up.weight.data[:16], part.up.bias.data[:16]
        part.down.weight.data = part.down.weight.data[:, :16].contiguous()


class Doubled(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return super().forward(input) * 2


class Negative(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return -weight


def other_class(model: SentenceTransformer) -> None:
    down = encoder_of(model).layers[0].feed_forward.down
    new = Doubled(down.in_features, down.out_features).to(down.weight.dtype)
    new.load_state_dict(down.state_dict())
    encoder_of(model).layers[0].feed_forward.down = new


def assigned(model: SentenceTransformer) -> None:
    weight = up(model).weight
    weight.data = weight.data * 2


def transposed(model: SentenceTransformer) -> None:
    weight = attention(model).query.weight
    weight.data = weight.data.t()


def pruned(model: SentenceTransformer) -> None:
    prune.random_unstructured(attention(model).value, "weight", 0.5)


# Of floats only, some of which the C++ does not take.
FLOATS: dict[str, Change] = {
    "another tensor": assigned,
    "another parameter": lambda model: setattr(up(model), "weight", nn.Parameter(up(model).weight.detach() * 2)),
    "transposed": transposed,
    "narrower": narrowed,
    "one narrower layer": lambda model: narrowed(model, (0,)),
    "a hook": lambda model: up(model).register_forward_hook(lambda module, given, result: result * 2),
    "a hook of a part": lambda model: attention(model).register_forward_hook(lambda module, given, result: result * 2),
    "a hook before": lambda model: up(model).register_forward_pre_hook(lambda module, given: (given[0] * 2,)),
    "a method": lambda model: setattr(up(model), "forward", lambda x: F.linear(x, -up(model).weight)),
    "another class": other_class,
    "another activation": lambda model: setattr(encoder_of(model).layers[0].feed_forward, "activation", F.relu),
    "a sequence": lambda model: setattr(attention(model), "key", nn.Sequential(attention(model).key, nn.ReLU())),
    "no bias": lambda model: setattr(attention(model).output, "bias", None),
    "pruned": pruned,
    "a parametrization": lambda model: parametrize.register_parametrization(up(model), "weight", Negative()),
}
# After which the encoder in C++ still computes what the modules do.
READ = ("another tensor", "another parameter", "narrower", "another activation", "no bias")


def check(model: SentenceTransformer, texts: list[str], change: Change, *, plain: bool) -> None:
    before = model.encode(texts)
    change(model)
    after = model.encode(texts)
    assert np.abs(after - before).max() > 1e-4
    assert np.array_equal(copy.deepcopy(model).encode(texts), after)  # which starts from nothing but the weights
    if plain:
        with kernels.use("reference"):
            assert np.abs(model.encode(texts) - after).max() <= 1e-6


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("change", VALUES)
def test_values(change: str, dtype: str, size: Literal["small", "large"], built: bool, folder: Path) -> None:
    model = load(folder, dtype)
    check(model, SMALL if size == "small" else LARGE, VALUES[change], plain=dtype == "float32")
    if built and native.available(getattr(torch, dtype)):
        assert in_native_code(model) == (change != "heads of one layer")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("change", FLOATS)
def test_floats(change: str, dtype: str, built: bool, folder: Path) -> None:
    model = load(folder, dtype)
    check(model, LARGE, FLOATS[change], plain=dtype == "float32")
    if change == "pruned":  # again: only a buffer changes
        check(model, LARGE, pruned, plain=dtype == "float32")
    if built and native.available(getattr(torch, dtype)):
        assert in_native_code(model) == (change in READ)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_another_dtype_and_back(dtype: str, built: bool, folder: Path) -> None:
    model = load(folder)
    before = model.encode(LARGE)
    model.to(getattr(torch, dtype))
    between = model.encode(LARGE)
    assert np.array_equal(copy.deepcopy(model).encode(LARGE), between)
    model.float()
    after = model.encode(LARGE)
    assert np.array_equal(copy.deepcopy(model).encode(LARGE), after)
    assert np.array_equal(after, before) == (dtype == "float64")


def test_weights_in_shared_memory(built: bool, folder: Path) -> None:
    model = load(folder)
    before = model.encode(LARGE)
    model.share_memory()
    assert np.array_equal(model.encode(LARGE), before)
    check(model, LARGE, VALUES["one column"], plain=True)


def test_an_address_with_another_shape_or_dtype(with_native: None, folder: Path) -> None:
    """Memory is used again: the same address says nothing about what is there."""
    model = load(folder)
    before = model.encode(SMALL)
    weight = up(model).weight
    kept = weight.data
    for changed in (kept.view(64, 128), kept.view(torch.bfloat16), kept[:64]):
        weight.data = changed
        assert weight.data_ptr() == kept.data_ptr()
        with pytest.raises(RuntimeError):  # of plain PyTorch, whose products refuse it
            model.encode(SMALL)
    weight.data = kept
    assert np.array_equal(model.encode(SMALL), before)
    assert in_native_code(model)
