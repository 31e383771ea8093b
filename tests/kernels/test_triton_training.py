"""Training as it runs on a GPU, step by step recorded, against training as it runs elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch

pytest.importorskip("triton")

from little_memory import memory_for
from triton_common import DEVICE, INTERPRETED, on_gpu, pytestmark, recorded  # noqa: F401

from minisbert import SentenceTransformer, Trainer, TrainingConfig, kernels, losses
from minisbert.errors import DivergenceError
from minisbert.training import gpu, guards

WORDS = "a cat sat on the mat why is sky blue and sea not one two three".split()
TEXTS = [" ".join(WORDS[(3 * i) % 11 : (3 * i) % 11 + 1 + i % 6]) for i in range(17)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model that drops nothing."""
    made = tiny_models.build(tmp_path / "model", "bert", layers=1)
    config = json.loads((made / "config.json").read_text())
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_attention_heads=2)
    (made / "config.json").write_text(json.dumps(config))
    return made


def train(folder: Path, loss: Any, *, count: int = 16, **settings: Any) -> tuple[list[dict[str, float]], torch.Tensor]:
    rows = [(TEXTS[i], TEXTS[i + 1], (1 + i % 5) / 5) for i in range(count)]
    model = SentenceTransformer(folder, device=DEVICE)
    given: dict[str, Any] = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 2, "log_every": 1}
    config = TrainingConfig(**{**given, **settings})
    entries: list[dict[str, float]] = []
    Trainer(model, rows, loss=loss, config=config, on_log=entries.append, show_progress_bar=False).train()
    return entries, torch.cat([weight.detach().flatten() for weight in model.parameters()])


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch, on_gpu: None) -> list[int]:  # noqa: F811
    """How many pieces of work were recorded."""
    count: list[int] = []

    def record(work: Any) -> Any:
        count.append(1)
        return recorded(work)

    monkeypatch.setattr(gpu, "CudaGraphs", lambda device: record)
    return count


@pytest.mark.parametrize(
    ("loss", "accumulation"), [(losses.CosineSimilarityLoss, 1), (losses.MultipleNegativesRankingLoss, 2)]
)
def test_recorded_steps_are_those_of_the_definition(
    loss: Any, accumulation: int, folder: Path, replays: list[int]
) -> None:
    got, weights = train(folder, loss(), gradient_accumulation=accumulation, weight_decay=0.01)
    assert len(replays) >= 3  # gradients, clipping and the update
    with kernels.use("reference"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "on_gpu", lambda values: False)
        expected, right = train(folder, loss(), gradient_accumulation=accumulation, weight_decay=0.01)
    for mine, theirs in zip(got, expected, strict=True):
        for name in ("loss", "learning_rate", "grad_norm"):
            assert mine[name] == pytest.approx(theirs[name], rel=2e-4, abs=1e-9), (name, mine["step"])
    assert float((weights - right).abs().max()) < 5e-4  # where a slope is almost 0, AdamW makes much of its sign


def test_steps_that_are_not_finite_change_nothing(folder: Path, replays: list[int]) -> None:
    class Overflowing(losses.CosineSimilarityLoss):
        def forward(self, embeddings: Any, labels: Any = None) -> torch.Tensor:
            value = super().forward(embeddings, labels)
            return value * torch.where(labels.max() > 0.99, float("inf"), 1.0)

    got, weights = train(folder, Overflowing())
    assert bool(weights.isfinite().all())
    finite = [entry for entry in got if torch.tensor(entry["grad_norm"]).isfinite()]
    assert 0 < len(finite) < len(got)
    # The schedule goes on only where weights were changed: its first rate is 0, and it rises over two updates.
    rates = [entry["learning_rate"] for entry in finite]
    assert rates == pytest.approx([0, 5e-4, 1e-3][: len(rates)])


def test_large_batches_are_embedded_in_pieces(folder: Path, replays: list[int], monkeypatch: Any) -> None:
    whole, right = train(folder, losses.MultipleNegativesRankingLoss(), count=8)
    monkeypatch.setattr(gpu, "MAX_TOKENS", 40)
    pieces, weights = train(folder, losses.MultipleNegativesRankingLoss(), count=8)
    assert [entry["loss"] for entry in pieces] == pytest.approx([entry["loss"] for entry in whole], rel=1e-4)
    assert float((weights - right).abs().max()) < 1e-4


def test_gradients_of_a_step_that_ran_out_of_memory_count_once(folder: Path, replays: list[int]) -> None:
    settings = {"gradient_accumulation": 2, "max_steps": 1, "warmup_steps": 0}
    whole, right = train(folder, losses.CosineSimilarityLoss(), count=8, **settings)
    with memory_for(40, after_backward=True) as tried, pytest.warns(UserWarning, match="in pieces"):
        pieces, weights = train(folder, losses.CosineSimilarityLoss(), count=8, **settings)
    assert max(tried) > 40
    for name in ("loss", "grad_norm"):
        assert [entry[name] for entry in pieces] == pytest.approx([entry[name] for entry in whole], rel=1e-3)
    assert float((weights - right).abs().max()) < 5e-4


def test_norms_are_read_when_the_log_is_written(folder: Path, replays: list[int], monkeypatch: Any) -> None:
    monkeypatch.setattr(guards, "MAX_SKIPPED", 2)
    steps: list[int] = []

    class Infinite(losses.CosineSimilarityLoss):
        def forward(self, embeddings: Any, labels: Any = None) -> torch.Tensor:
            steps.append(1)
            return super().forward(embeddings, labels) * float("inf")

    with pytest.raises(DivergenceError, match="2 steps in a row are not finite, first those of step 1: rows"):
        train(folder, Infinite(), log_every=4)
    assert len(steps) == 4
