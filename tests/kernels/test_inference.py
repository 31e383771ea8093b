"""The encoder in inference, in C++ and through oneDNN, against its definition."""

from __future__ import annotations

import copy
import gc
import pickle
import random
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
import torch.nn.functional as F
from common import WORDS
from minisbert.kernels.cpu_ops import onednn
from torch.nn.utils import prune

from minisbert import SentenceTransformer, Trainer, TrainingConfig, kernels, losses
from minisbert.errors import ConfigError
from minisbert.training.config import PrecisionMode

_DRAW = random.Random(3)
TEXTS = [" ".join(_DRAW.choices(WORDS, k=_DRAW.randint(0, 30))) for _ in range(60)]


@pytest.fixture(params=["native", "onednn"])
def operations(request: pytest.FixtureRequest) -> str:
    """With the encoder in C++, and with oneDNN's products between plain definitions."""
    request.getfixturevalue("with_native" if request.param == "native" else "without_native")
    return str(request.param)


def load(folder: Path, **options: object) -> SentenceTransformer:
    return SentenceTransformer(folder, device="cpu", truncation="count", **options)  # type: ignore[arg-type]


def plainly(model: SentenceTransformer) -> np.ndarray:
    with kernels.use("reference"):
        return np.asarray(model.encode(TEXTS))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "mpnet", "minilm"])
def test_float32(name: str, operations: str, model_folder: Callable[[str], Path]) -> None:
    model = load(model_folder(name))
    assert np.abs(model.encode(TEXTS) - plainly(model)).max() <= 1e-6
    bound = model.transformer.auto_model._native._bound  # type: ignore[union-attr]
    whole = bound is not None and bound[1] is not None
    assert whole == (name == "minilm" and operations == "native")  # the others have narrower heads


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "mpnet"])
def test_every_architecture_runs_natively(name: str, with_native: None, tmp_path: Path) -> None:
    model = load(tiny_models.build(tmp_path / name, name, dim=64))
    assert np.abs(model.encode(TEXTS) - plainly(model)).max() <= 1e-6
    bound = model.transformer.auto_model._native._bound  # type: ignore[union-attr]
    assert bound is not None
    assert bound[1] is not None


@pytest.mark.skipif(not onednn.bfloat16_available(), reason="the processor has no products in bfloat16")
@pytest.mark.parametrize("name", ["bert", "minilm"])
def test_bfloat16(name: str, operations: str, model_folder: Callable[[str], Path]) -> None:
    folder = model_folder(name)
    assert cosines(load(folder, dtype="bfloat16").encode(TEXTS), load(folder).encode(TEXTS)).min() > 0.9997


def test_int8(operations: str, minilm: Path) -> None:
    model = load(minilm, dtype="int8")
    found = model.encode(TEXTS)
    assert cosines(found, plainly(model)).min() > 0.999
    assert cosines(found, load(minilm).encode(TEXTS)).min() > 0.998
    with pytest.raises(ConfigError, match="dtype 'int8'; training needs float32"):
        Trainer(model, [("a", "b")], loss=losses.MultipleNegativesRankingLoss())


def test_query_key_and_value_side_by_side(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, operations: str
) -> None:
    """One product takes all three where a model was loaded; each has its own where one was moved."""
    model = load(tiny("bert"))
    products, product = [], onednn._product

    def counted(x: torch.Tensor, weight: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        products.append(tuple(weight.shape))
        return product(x, weight, *rest, **options)

    monkeypatch.setattr(onednn, "_product", counted)
    attention = model.transformer.auto_model.layers[0].attention  # type: ignore[index, union-attr]
    together = model.encode(TEXTS)
    joined = onednn._side_by_side([attention.query.weight, attention.key.weight, attention.value.weight])
    assert joined is not None
    assert torch.equal(joined[32:64], attention.key.weight)
    attention.key.weight.data = attention.key.weight.data.clone()
    assert onednn._side_by_side([attention.query.weight, attention.key.weight]) is None
    assert onednn._side_by_side([attention.query.weight, attention.query.weight]) is None
    if operations == "onednn" and onednn.available():
        count = len(products)
        assert count == 4 * 2  # layers
        assert np.abs(model.encode(TEXTS) - together).max() <= 1e-6
        assert len(products) - count == 4 * 2 + 2


def test_changed_weights_are_used(operations: str, tiny: Callable[[str], Path]) -> None:
    model = load(tiny("bert"))
    before = model.encode(TEXTS)
    rows = {"a": TEXTS[:8], "b": TEXTS[8:16], "label": [0.1] * 8}
    config = TrainingConfig(max_steps=2, learning_rate=1e-2)
    Trainer(model, rows, loss=losses.CosineSimilarityLoss(), config=config, show_progress_bar=False).train()
    after = model.encode(TEXTS)
    assert np.abs(after - before).max() > 1e-3
    assert np.abs(after - plainly(model)).max() <= 1e-6
    model.load_state_dict(load(tiny("bert")).state_dict())
    assert np.array_equal(model.encode(TEXTS), before)
    for weight in model.parameters():
        weight.data.mul_(0.9)  # torch does not count this as a change
    assert np.abs(model.encode(TEXTS) - plainly(model)).max() <= 1e-6


def in_layers(change: Callable[[Any], None]) -> Callable[[SentenceTransformer], None]:
    def changed(model: SentenceTransformer) -> None:
        for layer in model.transformer.auto_model.layers:  # type: ignore[union-attr]
            change(layer)

    return changed


class Doubled(torch.nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return super().forward(input) * 2


def narrowed(layer: Any, *, to: int = 16) -> None:
    part = layer.feed_forward
    part.up.weight.data, part.up.bias.data = part.up.weight.data[:to], part.up.bias.data[:to]
    part.down.weight.data = part.down.weight.data[:, :to]


def doubled(layer: Any) -> None:
    found = Doubled(layer.feed_forward.down.in_features, layer.feed_forward.down.out_features)
    found.load_state_dict(layer.feed_forward.down.state_dict())
    layer.feed_forward.down = found


CHANGES: dict[str, Callable[[SentenceTransformer], None]] = {
    "sign": in_layers(lambda layer: layer.attention.query.weight.data.neg_()),
    "power of two": in_layers(lambda layer: layer.attention.value.weight.data.mul_(4)),
    "norm": in_layers(lambda layer: layer.attention.norm.weight.data.fill_(2.0)),
    "eps": in_layers(lambda layer: setattr(layer.attention.norm, "eps", 0.1)),
    "transposed": in_layers(
        lambda layer: setattr(layer.attention.query.weight, "data", layer.attention.query.weight.data.t())
    ),
    "narrower": in_layers(narrowed),
    "one narrower layer": lambda model: narrowed(model.transformer.auto_model.layers[0]),  # type: ignore[index, union-attr]
    "hook": in_layers(lambda layer: layer.feed_forward.register_forward_hook(lambda part, given, made: made * 2)),
    "other class": in_layers(doubled),
    "sequence": in_layers(
        lambda layer: setattr(layer.attention, "query", torch.nn.Sequential(layer.attention.query, torch.nn.ReLU()))
    ),
    "no bias": in_layers(lambda layer: setattr(layer.attention.output, "bias", None)),
    "activation": in_layers(lambda layer: setattr(layer.feed_forward, "activation", F.relu)),
    "pruned": in_layers(lambda layer: prune.random_unstructured(layer.attention.value, "weight", 0.5)),
    "moved": lambda model: model.share_memory(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_in_an_encoder_is_followed(change: str, operations: str, tiny: Callable[[str], Path]) -> None:
    model = load(tiny("bert"))
    before = model.encode(TEXTS)
    CHANGES[change](model)
    after = model.encode(TEXTS)
    assert np.abs(after - plainly(model)).max() <= 1e-6
    assert (np.abs(after - before).max() > 1e-3) == (change != "moved")
    if change == "pruned":  # again: only a buffer changes
        CHANGES[change](model)
        assert np.abs(model.encode(TEXTS) - plainly(model)).max() <= 1e-6


def test_an_encoder_is_let_go(operations: str, tiny: Callable[[str], Path]) -> None:
    model = load(tiny("bert"))
    model.encode(TEXTS)
    known = weakref.ref(model.transformer.auto_model)
    del model
    gc.collect()
    assert known() is None


def test_a_model_made_in_inference_mode(operations: str, tiny: Callable[[str], Path]) -> None:
    with torch.inference_mode():
        model = load(tiny("bert"))
        assert np.abs(model.encode(TEXTS) - plainly(model)).max() <= 1e-6


def test_gradients_and_copies(operations: str, tiny: Callable[[str], Path]) -> None:
    model = load(tiny("bert"))
    expected = model.encode(TEXTS)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(other.encode(TEXTS), expected)
    with ThreadPoolExecutor(4) as threads:
        assert all(np.array_equal(found, expected) for found in threads.map(lambda _: model.encode(TEXTS), range(8)))
    assert np.abs(model.double().encode(TEXTS) - expected).max() <= 1e-6
    model.float()
    with torch.enable_grad():
        from minisbert.modules.features import Features
        from minisbert.packing import pack

        features = model(Features(pack(model.transformer.tokenizer(TEXTS))))
        features.sentences.sum().backward()
    assert all(weight.grad is not None for name, weight in model.named_parameters() if "token_type" not in name)


@pytest.mark.filterwarnings("ignore:.*are empty")
@pytest.mark.skipif(not onednn.bfloat16_available(), reason="the processor has no products in bfloat16")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fused_layers_train_as_plain_ones(
    precision: PrecisionMode, minilm: Path, with_native: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without dropout, which each draws in its own way."""
    rows = {"a": TEXTS[:24], "b": TEXTS[24:48], "label": [0.1, 0.9] * 12}
    found = {}
    for mode in ("auto", "reference"):
        model = load(minilm)
        for module in model.modules():
            for name in ("dropout", "weight_dropout", "output_dropout"):
                if hasattr(module, name):
                    setattr(module, name, 0.0)
        config = TrainingConfig(
            batch_size=8, max_steps=3, learning_rate=1e-4, log_every=1, max_grad_norm=0.0, precision=precision
        )
        with kernels.use(mode):  # type: ignore[arg-type]
            trainer = Trainer(model, rows, loss=losses.CosineSimilarityLoss(), config=config, show_progress_bar=False)
            found[mode] = [entry["loss"] for entry in trainer.train().entries], trainer.model.encode(TEXTS)
    assert found["auto"][0] != found["reference"][0]
    bound = 1e-5 if precision == "fp32" else 3e-3
    assert np.abs(np.subtract(found["auto"][0], found["reference"][0])).max() <= bound
    assert cosines(found["auto"][1], found["reference"][1]).min() > 1 - 100 * bound
