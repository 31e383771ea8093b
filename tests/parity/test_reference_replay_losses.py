"""Replay of 6.2 with each loss, from rows to the loss of every batch: bit for bit, or up to rounding."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common import WORDS
from replay_cases import RANKING

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses

reference = pytest.importorskip("sentence_transformers")
reference_losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
datasets = pytest.importorskip("datasets")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.parity, pytest.mark.long, pytest.mark.filterwarnings("ignore")]

ROWS, DIM = 37, 32
DRAW = np.random.default_rng(9)
SCORES = DRAW.random(ROWS).round(1).tolist()
BINARY, CLASSES = DRAW.integers(0, 2, ROWS).tolist(), DRAW.integers(0, 3, ROWS).tolist()
VECTORS, CANDIDATES = (DRAW.normal(size=(ROWS, size)).astype(np.float32).tolist() for size in (DIM, 3))
ALL = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")

# The loss, number of text columns, labels and options of each run.
Run = tuple[str, int, list[Any] | None, dict[str, Any]]
EXACT: tuple[Run, ...] = (
    ("AnglELoss", 3, None, {}),
    ("AnglELoss", 2, SCORES, {}),
    ("CoSENTLoss", 2, SCORES, {}),
    ("MultipleNegativesRankingLoss", 3, None, {"hardness_mode": "all_negatives", "hardness_strength": 5.0}),
    ("TripletLoss", 3, None, {}),
    ("ContrastiveLoss", 2, BINARY, {}),
    ("OnlineContrastiveLoss", 2, BINARY, {}),
    ("MSELoss", 2, VECTORS, {}),
    ("EmbedDistillLoss", 1, VECTORS, {}),
    ("MarginMSELoss", 3, SCORES, {}),
    ("DistillKLDivLoss", 4, CANDIDATES, {}),
    ("BatchAllTripletLoss", 1, CLASSES, {}),
    ("BatchHardTripletLoss", 1, CLASSES, {}),
    ("BatchHardSoftMarginTripletLoss", 1, CLASSES, {}),
    ("BatchSemiHardTripletLoss", 1, CLASSES, {}),
    ("SoftmaxLoss", 2, CLASSES, {"embedding_dimension": DIM, "num_labels": 3}),
    ("GlobalOrthogonalRegularizationLoss", 2, None, {}),
    ("ContrastiveTensionLossInBatchNegatives", 1, None, {}),
    ("ContrastiveTensionLoss", 2, BINARY, {}),
    ("ContrastiveTensionLoss", 2, None, {}),
    ("DenoisingAutoEncoderLoss", 2, None, {}),
    ("AdaptiveLayerLoss", 2, SCORES, {"loss": "CoSENTLoss"}),
    ("AdaptiveLayerLoss", 3, None, {"loss": "TripletLoss", "n_layers_per_step": -1, "layer_weighting": "log"}),
    ("MultipleNegativesRankingLoss", 3, None, {"directions": ALL}),
    ("MultipleNegativesSymmetricRankingLoss", 2, None, {}),
    ("Matryoshka2dLoss", 2, None, {"loss": "MultipleNegativesRankingLoss", "matryoshka_dims": [DIM, 8]}),
    (
        "MatryoshkaLoss",
        2,
        None,
        {"loss": f"Cached{RANKING}", "matryoshka_dims": [DIM, 24, 16, 8], "n_dims_per_step": 3},
    ),
)
ROUNDED: tuple[Run, ...] = (
    ("MegaBatchMarginLoss", 2, None, {"use_mini_batched_version": False}),
    ("MegaBatchMarginLoss", 2, None, {}),
    ("MatryoshkaLoss", 2, None, {"loss": "MultipleNegativesRankingLoss", "matryoshka_dims": [DIM, 8]}),
)


def made(run: Run, library: Any, model: Any, values: list[float]) -> Any:
    """Make a loss whose values are kept; terms are added up, as the reference's trainer does."""
    name, _, _, options = run
    inner = {"loss": getattr(library, options["loss"])(model)} if "loss" in options else {}
    loss = getattr(library, name)(model, **{**options, **inner})

    def keep(module: Any, inputs: Any, output: Any) -> None:
        values.append(float(sum(output.values()) if isinstance(output, dict) else output))

    loss.register_forward_hook(keep)
    # The reference draws its widget examples before from the generator that layers and sizes are sampled with.
    loss.register_forward_pre_hook(lambda *_: random.seed(7))
    return loss


def runs(run: Run, folder: Path, work: Path) -> tuple[list[float], list[float]]:
    """Train with both; return the losses of all batches of each."""
    _, columns, labels, _ = run
    draw = np.random.default_rng(5)
    data: dict[str, list[Any]] = {
        f"text_{column}": [" ".join(draw.choice(WORDS, draw.integers(1, 14))) for _ in range(ROWS)]
        for column in range(columns)
    }
    if labels is not None:
        data["label"] = labels
    got: list[float] = []
    expected: list[float] = []
    torch.manual_seed(1234)
    model = reference.SentenceTransformer(str(folder), device="cpu")
    reference.SentenceTransformerTrainer(
        model=model,
        args=reference.SentenceTransformerTrainingArguments(
            output_dir=str(work),
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            num_train_epochs=2,
            per_device_train_batch_size=8,
            learning_rate=1e-3,
            seed=7,
        ),
        train_dataset=datasets.Dataset.from_dict(data),
        loss=made(run, reference_losses, model, expected),
    ).train()
    torch.manual_seed(1234)
    ours = SentenceTransformer(folder, device="cpu")
    config = TrainingConfig(replay="6.2", epochs=2, batch_size=8, learning_rate=1e-3, seed=7)
    Trainer(ours, data, loss=made(run, losses, ours, got), config=config, show_progress_bar=False).train()
    return got, expected


@pytest.mark.parametrize("run", EXACT, ids=lambda run: f"{run[0]} of {run[1]}")
def test_bit_for_bit(run: Run, tiny: Callable[[str], Path], tmp_path: Path, compare: Callable[..., None]) -> None:
    got, expected = runs(run, tiny("bert"), tmp_path)
    assert len(got) == len(expected) == 10
    compare("replay of 6.2.0: other losses", np.abs(np.subtract(got, expected)).max(), 0, cases=len(got))


@pytest.mark.parametrize("run", ROUNDED, ids=lambda run: f"{run[0]} of {run[1]}")
def test_up_to_rounding(run: Run, tiny: Callable[[str], Path], tmp_path: Path, compare: Callable[..., None]) -> None:
    got, expected = runs(run, tiny("bert"), tmp_path)
    assert len(got) == len(expected) == 10
    difference = np.abs(np.subtract(got, expected)) / np.abs(expected)
    compare("replay of 6.2.0: losses that round differently", difference.max(), 1e-5, cases=len(got))


def test_terms_in_the_log(tiny: Callable[[str], Path], tmp_path: Path, compare: Callable[..., None]) -> None:
    draw = np.random.default_rng(5)
    data = {name: [" ".join(draw.choice(WORDS, draw.integers(1, 14))) for _ in range(24)] for name in ("a", "b")}
    logged: list[dict[str, float]] = []

    class Keep(transformers.TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
            logged.append({"step": state.global_step, **logs})

    model = reference.SentenceTransformer(str(tiny("bert")), device="cpu")
    reference.SentenceTransformerTrainer(
        model=model,
        args=reference.SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path),
            report_to="none",
            save_strategy="no",
            eval_strategy="steps",
            eval_steps=3,
            logging_steps=3,
            use_cpu=True,
            disable_tqdm=True,
            num_train_epochs=2,
            per_device_train_batch_size=8,
            learning_rate=1e-3,
            seed=7,
        ),
        train_dataset=datasets.Dataset.from_dict(data),
        eval_dataset=datasets.Dataset.from_dict(data),
        loss=reference_losses.GlobalOrthogonalRegularizationLoss(model),
        callbacks=[Keep()],
    ).train()
    ours = SentenceTransformer(tiny("bert"), device="cpu")
    config = TrainingConfig(
        replay="6.2", epochs=2, batch_size=8, learning_rate=1e-3, seed=7, log_every=3, eval_every=3, eval_batch_size=8
    )
    loss = losses.GlobalOrthogonalRegularizationLoss(ours)
    run = Trainer(ours, data, loss=loss, config=config, eval_data=data, show_progress_bar=False).train()
    expected, got = (
        [(entry["step"], name, entry[name]) for entry in entries for name in sorted(entry) if "gor" in name]
        for entries in (logged, run.entries)
    )
    assert [one[:2] for one in got] == [one[:2] for one in expected]
    assert len(got) == 8
    differences = [round(one[2], 4) - other[2] for one, other in zip(got, expected, strict=True)]
    compare("terms of a loss in the log, of 4 decimals", max(map(abs, differences)), 1e-9, cases=len(got))
