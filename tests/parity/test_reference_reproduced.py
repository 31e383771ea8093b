"""Cards that the reference writes after training with many losses, read as recipes and followed to the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import references
import torch
from places import HELPERS
from safetensors.torch import load_file
from tiny_models import WORDS

from minisbert import recipes
from minisbert.training.config import ReplayVersion

pytestmark = [pytest.mark.parity, pytest.mark.long, pytest.mark.filterwarnings("ignore")]

VERSIONS: dict[str, ReplayVersion] = {"6.2.0": "6.2", "5.1.2": "5.1"}
ROWS, DIM = 24, 32
DRAW = np.random.default_rng(2)
SCORES, BINARY = DRAW.random(ROWS).round(2).tolist(), DRAW.integers(0, 2, ROWS).astype(float).tolist()
CLASSES, VECTORS = DRAW.integers(0, 3, ROWS).tolist(), DRAW.normal(size=(ROWS, DIM)).round(3).tolist()
SETTINGS = {"num_train_epochs": 2, "per_device_train_batch_size": 6, "learning_rate": 1e-3, "seed": 7}
MATRYOSHKA = {"matryoshka_dims": [DIM, 8]}

# The loss, number of text columns, labels, options and inner loss of each card.
CASES: dict[str, tuple[int, list[Any] | None, dict[str, Any], str]] = {
    "CosineSimilarityLoss": (2, SCORES, {}, ""),
    "CoSENTLoss": (2, SCORES, {"scale": 10.0}, ""),
    "AnglELoss": (2, SCORES, {}, ""),
    "MultipleNegativesRankingLoss": (3, None, {"scale": 10.0}, ""),
    "TripletLoss": (3, None, {"triplet_margin": 2}, ""),
    "ContrastiveLoss": (2, BINARY, {"margin": 0.7}, ""),
    "OnlineContrastiveLoss": (2, BINARY, {}, ""),
    "MSELoss": (1, VECTORS, {}, ""),
    "MarginMSELoss": (3, SCORES, {}, ""),
    "BatchAllTripletLoss": (1, CLASSES, {"margin": 3}, ""),
    "BatchHardSoftMarginTripletLoss": (1, CLASSES, {}, ""),
    "SoftmaxLoss": (2, CLASSES, {"sentence_embedding_dimension": DIM, "num_labels": 3}, ""),
    "ContrastiveTensionLossInBatchNegatives": (1, None, {}, ""),
    "MatryoshkaLoss": (2, SCORES, MATRYOSHKA, "CoSENTLoss"),
    "AdaptiveLayerLoss": (2, SCORES, {"n_layers_per_step": -1, "kl_temperature": 0}, "CoSENTLoss"),
    "DistillKLDivLoss": (3, [[score, 1 - score] for score in SCORES], {}, ""),
}
NOT_IN_5 = ("ContrastiveTensionLossInBatchNegatives",)  # which takes two columns there
CHANGED_SINCE_5 = {"AdaptiveLayerLoss": "leaves out the embeddings of words", "TripletLoss": "draws negatives near"}
ROUNDED = {"6.2.0": ("MatryoshkaLoss",)}
ROUNDED["5.1.2"] = (
    "CoSENTLoss",
    "AnglELoss",
    "OnlineContrastiveLoss",
    "BatchHardSoftMarginTripletLoss",
    "MatryoshkaLoss",
)
BOUND = 1e-3  # of weights after eight steps at a rate of 1e-3, where the loss rounds differently


def columns(count: int, labels: list[Any] | None) -> dict[str, Any]:
    draw = np.random.default_rng(5)
    texts = {
        f"text_{column}": [" ".join(draw.choice(WORDS, draw.integers(1, 14))) for _ in range(ROWS)]
        for column in range(count)
    }
    return texts if labels is None else {**texts, "label": labels}


def options_of(name: str, version: str) -> dict[str, Any]:
    options = dict(CASES[name][2])
    if "sentence_embedding_dimension" in options and version.startswith("6"):
        options["embedding_dimension"] = options.pop("sentence_embedding_dimension")
    return options


@pytest.fixture(scope="module")
def saved(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder with what a version has saved, a model with its card for each loss."""
    done: dict[str, Path] = {}

    def folder(version: str) -> Path:
        if version not in done:
            place = tmp_path_factory.mktemp(version)
            cases = [
                {
                    "loss": name,
                    "inner": inner,
                    "options": options_of(name, version),
                    "data": columns(count, labels),
                    "folder": str(tiny("bert")),
                    "output": str(place / name),
                    "settings": SETTINGS,
                }
                for name, (count, labels, _, inner) in CASES.items()
                if version.startswith("6") or name not in NOT_IN_5
            ]
            (place / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
            script = (HELPERS / "reference_losses.py").read_text(encoding="utf-8")
            references.run_in(version, script, place / "cases.json")
            done[version] = place
        return done[version]

    return folder


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_card_is_followed_to_the_same_weights(
    version: str,
    name: str,
    saved: Callable[[str], Path],
    tiny: Callable[[str], Path],
    tmp_path: Path,
    compare: Callable[..., None],
) -> None:
    if name in NOT_IN_5 and version.startswith("5"):
        pytest.skip("takes other columns in this version")
    folder = saved(version) / name
    recipe = recipes.read_recipe(folder / "README.md")
    assert recipe.loss == name
    if version.startswith("5") and name in CHANGED_SINCE_5:
        assert CHANGED_SINCE_5[name] in recipe.not_followed[0]
        return
    assert not recipe.not_followed
    count, labels, _, _ = CASES[name]
    torch.manual_seed(1234)
    run = recipes.prepare(
        recipe,
        columns(count, labels),
        base_model=tiny("bert"),
        device="cpu",
        settings={"replay": VERSIONS[version]},
        show_progress_bar=False,
    )
    run.trainer.train()
    run.model.save_pretrained(tmp_path, create_model_card=False)
    ours, theirs = (load_file(place / "model.safetensors") for place in (tmp_path, folder))
    largest = max(float((ours[key] - theirs[key]).abs().max()) for key in theirs)
    bound = BOUND if name in ROUNDED[version] else 0.0
    compare(f"cards of {version} followed: final weights{', rounded' if bound else ''}", largest, bound)
