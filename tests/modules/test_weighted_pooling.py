"""WeightedLayerPooling: its definition, saved and loaded, trained, and beside the reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common import WORDS
from safetensors.torch import save_file
from torch import Tensor, nn

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.errors import ConfigError, ModelError
from minisbert.modules import Dense, LayerNorm, Pooling, WeightedLayerPooling
from minisbert.packing import pack

TEXTS = [" ".join(WORDS[:count]) for count in (3, 9, 1, 14)]
WEIGHTS = torch.tensor([0.5, 2.0])


def built(folder: Path, **options: Any) -> SentenceTransformer:
    transformer = SentenceTransformer(folder, device="cpu").transformer
    pooling = WeightedLayerPooling(32, 2, 1, WEIGHTS, **options)
    return SentenceTransformer(modules=[transformer, pooling, Pooling(32)], device="cpu")


@pytest.mark.parametrize("architecture", ["bert", "mpnet"])
def test_definition(architecture: str, tiny: Callable[[str], Path]) -> None:
    model = built(tiny(architecture))
    got = model.encode(TEXTS)
    for row, text in enumerate(TEXTS):
        layers: list[Tensor] = []
        with torch.inference_mode():
            model.transformer.auto_model(pack(model.transformer.tokenizer([text])), layers)
        mean = (0.5 * layers[1] + 2.0 * layers[2]) / 2.5
        np.testing.assert_allclose(got[row], mean.mean(0).numpy(), atol=1e-6)


def test_saved_and_loaded(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model = built(tiny("bert"))
    model.save_pretrained(tmp_path)
    again = SentenceTransformer(tmp_path, device="cpu")
    assert np.array_equal(model.encode(TEXTS), again.encode(TEXTS))
    assert torch.equal(again[1].layer_weights, WEIGHTS)
    assert json.loads((tmp_path / "config.json").read_text())["output_hidden_states"] is True


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("asked", [True, False])
def test_the_reference_embeds_the_same(
    asked: bool, tiny: Callable[[str], Path], tmp_path: Path, compare: Callable[..., None]
) -> None:
    reference = pytest.importorskip("sentence_transformers")
    built(tiny("bert")).save_pretrained(tmp_path)
    if not asked:
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "output_hidden_states": False}))
    ours = SentenceTransformer(tmp_path, device="cpu").encode(TEXTS)
    theirs = reference.SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS)
    compare("encode: WeightedLayerPooling", float(np.abs(ours - theirs).max()), 1e-6)


def test_a_model_that_does_not_ask_for_layers(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    built(tiny("bert")).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["output_hidden_states"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="has no effect, as in the reference"):
        model = SentenceTransformer(tmp_path, device="cpu")
    plain = SentenceTransformer(modules=[model.transformer, Pooling(32)], device="cpu")
    assert np.array_equal(model.encode(TEXTS), plain.encode(TEXTS))


def test_losses_over_layers_are_refused(tiny: Callable[[str], Path]) -> None:
    """What comes after the encoder makes the mean of all layers, whichever of them the loss is of."""
    model = built(tiny("bert"))
    for loss in (
        losses.AdaptiveLayerLoss(model, losses.MultipleNegativesRankingLoss()),
        losses.Matryoshka2dLoss(model, losses.MultipleNegativesRankingLoss(), [32, 8]),
    ):
        with pytest.raises(ConfigError, match=f"got a model with WeightedLayerPooling.*{type(loss).__name__} expects"):
            Trainer(model, [(text, text) for text in TEXTS], loss=loss, show_progress_bar=False)


def test_weights_are_trained(tiny: Callable[[str], Path]) -> None:
    model = built(tiny("bert"))
    rows = [(text, text) for text in TEXTS]
    config = TrainingConfig(epochs=2, batch_size=2, learning_rate=1e-2)
    Trainer(model, rows, loss=losses.MultipleNegativesRankingLoss(), config=config, show_progress_bar=False).train()
    assert not torch.equal(model[1].layer_weights.detach(), WEIGHTS)


@pytest.mark.parametrize(
    "options",
    [
        {"num_hidden_layers": 0},
        {"layer_start": 13},
        {"layer_start": True},
        {"layer_weights": torch.ones(3)},
        {"layer_weights": torch.zeros(9)},
        {"layer_weights": torch.full((9,), torch.nan)},
        {"layer_weights": torch.full((9,), torch.inf)},
        {"layer_weights": torch.ones(9, dtype=torch.int64)},
        {"layer_weights": [1.0] * 9},
    ],
    ids=str,
)
def test_what_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        WeightedLayerPooling(32, **options)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ((WeightedLayerPooling(32), Pooling(32)), "got 2 layers; this WeightedLayerPooling expects 12"),
        ((WeightedLayerPooling(16, 2, 1), Pooling(32)), "WeightedLayerPooling takes 16 values; expected 32"),
        ((Pooling(16),), "number 1 does not fit: a Pooling takes 16 values; expected 32"),
        ((Pooling(32), Dense(16, 8)), "number 2 does not fit: a Dense takes 16 values; expected 32"),
        ((Pooling(32), Dense(32, 8), LayerNorm(32)), "a LayerNorm takes 32 values; expected 8"),
        ((Pooling(32), WeightedLayerPooling(32, 2, 1)), "after a Pooling, where it has no effect"),
    ],
)
def test_modules_that_do_not_fit(modules: tuple[nn.Module, ...], message: str, tiny: Callable[[str], Path]) -> None:
    transformer = SentenceTransformer(tiny("bert"), device="cpu").transformer
    with pytest.raises((ConfigError, ModelError), match=message):
        SentenceTransformer(modules=[transformer, *modules], device="cpu")


def test_a_module_of_the_caller_may_have_any_size(tiny: Callable[[str], Path]) -> None:
    transformer = SentenceTransformer(tiny("bert"), device="cpu").transformer
    model = SentenceTransformer(modules=[transformer, Pooling(32), nn.Identity(), Dense(8, 4)], device="cpu")
    assert len(model) == 4


def rewritten(folder: Path, *, weights: Tensor | None = None, order: tuple[int, ...] = (0, 1, 2)) -> None:
    """Change a saved model of three modules."""
    if weights is not None:
        save_file({"layer_weights": weights}, folder / "1_WeightedLayerPooling" / "model.safetensors")
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([{**modules[old], "idx": new} for new, old in enumerate(order)]))


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -1.0], [float("nan"), 1.0], [float("inf"), 1.0]], ids=str)
def test_saved_weights_that_have_no_mean(weights: list[float], tiny: Callable[[str], Path], tmp_path: Path) -> None:
    built(tiny("bert")).save_pretrained(tmp_path)
    rewritten(tmp_path, weights=torch.tensor(weights))
    with pytest.raises(ModelError, match="1_WeightedLayerPooling: got layer_weights .* expected finite weights"):
        SentenceTransformer(tmp_path, device="cpu")


def test_a_saved_one_after_pooling_has_no_effect(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    built(tiny("bert")).save_pretrained(tmp_path)
    rewritten(tmp_path, order=(0, 2, 1))
    with pytest.warns(UserWarning, match="comes after the Pooling and has no effect, as in the reference"):
        model = SentenceTransformer(tmp_path, device="cpu")
    plain = SentenceTransformer(modules=[model.transformer, Pooling(32)], device="cpu")
    assert np.array_equal(model.encode(TEXTS), plain.encode(TEXTS))


@pytest.mark.parametrize("kind", ["WordEmbeddings", "BoW", "WordWeights", "CNN", "LSTM", "Router", "Asym", "CLIPModel"])
def test_modules_that_are_refused_by_name(kind: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": f"sentence_transformers.models.{kind}"}])
    )
    with pytest.raises(ModelError) as caught:
        SentenceTransformer(tmp_path, device="cpu")
    assert f"minisbert has no {kind}" in str(caught.value)
    assert "\n" not in str(caught.value)
