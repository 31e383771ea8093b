"""Training with the cached losses gives the reference's losses and weights, with dropout off: it draws other masks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from replay_cases import RANKING, Rows
from safetensors.torch import load_file

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses

reference = pytest.importorskip("sentence_transformers")
datasets = pytest.importorskip("datasets")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

STEPS = 12
ALL = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
# The margin decides about texts that are equal to the positive, where rounding would.
CASES: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("CachedMultipleNegativesRankingLoss", 2, {"mini_batch_size": 3}),
    ("CachedMultipleNegativesRankingLoss", 4, {"mini_batch_size": 5, "directions": ALL}),
    ("CachedMultipleNegativesRankingLoss", 3, {"mini_batch_num_tokens": 40}),
    ("CachedMultipleNegativesSymmetricRankingLoss", 2, {"mini_batch_size": 1}),
    ("CachedGISTEmbedLoss", 3, {"mini_batch_size": 4, "temperature": 0.1, "margin": 0.1}),
)


def loss_of(library: Any, name: str, model: Any, guide: Any, options: dict[str, Any]) -> Any:
    return getattr(library, name)(model, **({"guide": guide} if "GIST" in name else {}), **options)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize(("name", "columns", "options"), CASES)
def test_losses_and_weights(
    name: str,
    columns: int,
    options: dict[str, Any],
    accumulation: int,
    tiny: Callable[[str], Path],
    tmp_path: Path,
    compare: Callable[..., None],
) -> None:
    folder = shutil.copytree(tiny("bert"), tmp_path / "still")
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    data = Rows(RANKING, 37, columns).make()
    theirs, their_guide = (reference.SentenceTransformer(str(folder), device="cpu").to(torch.float64) for _ in range(2))
    trainer = reference.SentenceTransformerTrainer(
        model=theirs,
        args=reference.SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path / "work"),
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            max_steps=STEPS,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=accumulation,
            learning_rate=1e-3,
            seed=5,
        ),
        train_dataset=datasets.Dataset.from_dict(data),
        loss=loss_of(reference.sentence_transformer.losses, name, theirs, their_guide, options),
    )
    trainer.train()
    expected = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    theirs.save_pretrained(str(tmp_path / "theirs"), create_model_card=False)

    ours, our_guide = (SentenceTransformer(folder, device="cpu").to(torch.float64) for _ in range(2))
    settings = TrainingConfig(
        max_steps=STEPS, batch_size=8, gradient_accumulation=accumulation, learning_rate=1e-3, seed=5, log_every=1
    )
    loss = loss_of(losses, name, ours, our_guide, options)
    history = Trainer(ours, data, loss=loss, config=settings, show_progress_bar=False).train()
    ours.save_pretrained(tmp_path / "ours", create_model_card=False)
    got = [entry["loss"] for entry in history.entries if "loss" in entry]

    assert len(got) == len(expected) == STEPS
    row = f"training with the gradient cache without dropout, {STEPS} steps, float64: {{}}"
    compare(row.format("losses"), np.abs(np.subtract(got, expected)).max(), 1e-6, cases=STEPS)
    mine, wanted = (load_file(tmp_path / side / "model.safetensors") for side in ("ours", "theirs"))
    compare(row.format("weights"), max(float((mine[key] - wanted[key]).abs().max()) for key in wanted), 1e-6)
