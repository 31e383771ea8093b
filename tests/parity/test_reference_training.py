"""Packed training gives the reference Trainer's losses, rates and weights, with dropout off: it draws other masks.

In float64 the two differ by nothing but rounding far below the bounds. In float32 sums are taken in another order, and
AdamW makes steps of full size out of gradients that are zero but for rounding (those of the keys' biases are), so that
only losses are compared.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from replay_cases import COSINE, RANKING, Rows
from safetensors.torch import load_file

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses

reference = pytest.importorskip("sentence_transformers")
datasets = pytest.importorskip("datasets")
pytestmark = [pytest.mark.parity, pytest.mark.long, pytest.mark.filterwarnings("ignore")]
COMMON = {"learning_rate": 1e-3, "seed": 5}


@pytest.fixture
def still_model(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """A tiny model without dropout."""
    folder = shutil.copytree(tiny("bert"), tmp_path / "still")
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def their_run(
    folder: Path, data: dict[str, list[Any]], loss: str, output: Path, dtype: torch.dtype, **arguments: Any
) -> list[tuple[float, float]]:
    """Losses and rates of each step; the trained model is saved in `output`."""
    model = reference.SentenceTransformer(str(folder), device="cpu").to(dtype)
    settings = reference.SentenceTransformerTrainingArguments(
        output_dir=f"{output}-work",
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        per_device_train_batch_size=8,
        **COMMON,
        **arguments,
    )
    trainer = reference.SentenceTransformerTrainer(
        model=model,
        args=settings,
        train_dataset=datasets.Dataset.from_dict(data),
        loss=getattr(reference.sentence_transformer.losses, loss)(model),
    )
    trainer.train()
    model.save_pretrained(str(output), create_model_card=False)
    return [(entry["loss"], entry["learning_rate"]) for entry in trainer.state.log_history if "loss" in entry]


def our_run(
    folder: Path, data: dict[str, list[Any]], loss: str, output: Path, dtype: torch.dtype, **settings: Any
) -> list[tuple[float, float]]:
    """The same here."""
    model = SentenceTransformer(folder, device="cpu").to(dtype)
    config = TrainingConfig(batch_size=8, log_every=1, **COMMON, **settings)
    trainer = Trainer(model, data, loss=getattr(losses, loss)(), config=config, show_progress_bar=False)
    history = trainer.train()
    model.save_pretrained(output, create_model_card=False)
    return [(entry["loss"], entry["learning_rate"]) for entry in history.entries]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("loss", "columns", "ours", "theirs"),
    [
        (COSINE, 2, {}, {}),
        (COSINE, 2, {"weight_decay": 0.1, "max_grad_norm": 0.05, "warmup_steps": 4}, None),
        (RANKING, 2, {"gradient_accumulation": 3}, {"gradient_accumulation_steps": 3}),
        (RANKING, 4, {"warmup_steps": 0.3}, None),
        (
            COSINE,
            2,
            {"lr_scheduler_type": "cosine", "warmup_steps": 4, "learning_rate_mapping": {r"layer\.1": 1e-4}},
            None,
        ),
        (RANKING, 3, {"prompts": {"anchor": "why: ", "positive": "the sky is "}}, None),
    ],
)
def test_losses_rates_and_weights(
    loss: str,
    columns: int,
    ours: dict[str, Any],
    theirs: dict[str, Any] | None,
    dtype: torch.dtype,
    still_model: Path,
    tmp_path: Path,
    compare: Callable[..., None],
) -> None:
    data = Rows(loss, 37, columns).make()
    expected = their_run(
        still_model, data, loss, tmp_path / "theirs", dtype, max_steps=50, **(ours if theirs is None else theirs)
    )
    got = our_run(still_model, data, loss, tmp_path / "ours", dtype, max_steps=50, **ours)
    assert len(got) == len(expected) == 50
    values, rates = np.abs(np.subtract(got, expected)).max(axis=0)
    assert rates == 0
    row = f"packed training without dropout, 50 steps, {str(dtype).removeprefix('torch.')}: {{}}"
    if dtype == torch.float32:
        compare(row.format(f"losses of {loss}"), values, 1e-6 if loss == COSINE else 1e-5, cases=50)
        return
    compare(row.format("losses"), values, 1e-6, cases=50)
    mine, wanted = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert mine.keys() == wanted.keys()
    compare(row.format("weights"), max(float((mine[key] - wanted[key]).abs().max()) for key in wanted), 1e-6)
