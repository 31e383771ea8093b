"""Training gives the reference Trainer's losses and weights (with dropout off, so that the layout draws nothing)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import WORDS

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses

reference = pytest.importorskip("sentence_transformers")
datasets = pytest.importorskip("datasets")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


def rows(count: int, columns: int, *, labels: bool) -> dict[str, list[Any]]:
    draw = np.random.default_rng(7)
    names = ("anchor", "positive", "negative_1", "negative_2")[:columns]
    data: dict[str, list[Any]] = {
        name: [" ".join(draw.choice(WORDS, draw.integers(1, 14))) for _ in range(count)] for name in names
    }
    if labels:
        data["label"] = draw.random(count).round(2).tolist()
    return data


@pytest.fixture
def still_model(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """A tiny model without dropout."""
    folder = shutil.copytree(tiny("bert"), tmp_path / "still")
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def reference_run(folder: Path, data: dict[str, list[Any]], loss: str, output: Path, **arguments: Any) -> Any:
    model = reference.SentenceTransformer(str(folder), device="cpu")
    settings = reference.SentenceTransformerTrainingArguments(
        output_dir=str(output), logging_steps=1, report_to="none", save_strategy="no", use_cpu=True, **arguments
    )
    trainer = reference.SentenceTransformerTrainer(
        model=model,
        args=settings,
        train_dataset=datasets.Dataset.from_dict(data),
        loss=getattr(reference.sentence_transformer.losses, loss)(model),
    )
    trainer.train()
    logged = [(entry["loss"], entry["learning_rate"]) for entry in trainer.state.log_history if "loss" in entry]
    return model, logged


@pytest.mark.parametrize(
    ("loss", "columns", "labels", "settings"),
    [
        ("CosineSimilarityLoss", 2, True, {}),
        ("CosineSimilarityLoss", 2, True, {"weight_decay": 0.1, "max_grad_norm": 0.05, "warmup_steps": 4}),
        ("MultipleNegativesRankingLoss", 2, False, {"gradient_accumulation": 3}),
        ("MultipleNegativesRankingLoss", 4, False, {"warmup_steps": 0.3}),
    ],
)
def test_losses_rates_and_weights(
    loss: str, columns: int, labels: bool, settings: dict[str, Any], still_model: Path, tmp_path: Path
) -> None:
    data = rows(37, columns, labels=labels)
    theirs_names = {"gradient_accumulation": "gradient_accumulation_steps"}
    theirs, expected = reference_run(
        still_model,
        data,
        loss,
        tmp_path / "out",
        per_device_train_batch_size=8,
        num_train_epochs=2,
        learning_rate=1e-3,
        seed=5,
        **{theirs_names.get(name, name): value for name, value in settings.items()},
    )
    model = SentenceTransformer(still_model, device="cpu")
    config = TrainingConfig(epochs=2, batch_size=8, learning_rate=1e-3, seed=5, log_every=1, **settings)
    trainer = Trainer(model, data, loss=getattr(losses, loss)(), config=config, show_progress_bar=False)
    history = trainer.train()
    got = [(entry["loss"], entry["learning_rate"]) for entry in history.entries]
    assert len(got) == len(expected) > 3
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)
    texts = data["anchor"]
    assert np.abs(model.encode(texts) - theirs.encode(texts)).max() < 2e-4
