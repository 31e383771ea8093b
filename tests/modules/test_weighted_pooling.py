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
from torch import Tensor

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.errors import ConfigError, ModelError
from minisbert.modules import Pooling, WeightedLayerPooling
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


def test_weights_are_trained(tiny: Callable[[str], Path]) -> None:
    model = built(tiny("bert"))
    rows = [(text, text) for text in TEXTS]
    config = TrainingConfig(epochs=2, batch_size=2, learning_rate=1e-2)
    Trainer(model, rows, loss=losses.MultipleNegativesRankingLoss(), config=config, show_progress_bar=False).train()
    assert not torch.equal(model[1].layer_weights.detach(), WEIGHTS)


@pytest.mark.parametrize(
    "options",
    [{"num_hidden_layers": 0}, {"layer_start": 13}, {"layer_start": True}, {"layer_weights": torch.ones(3)}],
    ids=str,
)
def test_what_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        WeightedLayerPooling(32, **options)


def test_another_number_of_layers(tiny: Callable[[str], Path]) -> None:
    transformer = SentenceTransformer(tiny("bert"), device="cpu").transformer
    model = SentenceTransformer(modules=[transformer, WeightedLayerPooling(32), Pooling(32)], device="cpu")
    with pytest.raises(ModelError, match="got 2 layers; this WeightedLayerPooling expects 12"):
        model.encode("a text")


@pytest.mark.parametrize("kind", ["WordEmbeddings", "BoW", "WordWeights", "CNN", "LSTM", "Router", "Asym", "CLIPModel"])
def test_modules_that_are_refused_by_name(kind: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": f"sentence_transformers.models.{kind}"}])
    )
    with pytest.raises(ModelError) as caught:
        SentenceTransformer(tmp_path, device="cpu")
    assert f"minisbert has no {kind}" in str(caught.value)
    assert "\n" not in str(caught.value)
