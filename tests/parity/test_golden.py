"""The reference's numbers, pinned: what `golden/make.py` wrote down is computed here without the reference."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path

import golden_inputs as inputs
import numpy as np
import pytest
import torch
from replay_cases import CASES, VERSIONS, our_run

from minisbert import SentenceTransformer, losses
from minisbert.training.config import ReplayVersion

GOLDEN = Path(__file__).parent / "golden"
# Dropout draws its masks with MKL, where torch has it; the golden runs had it.
same_dropout = pytest.mark.skipif(
    not torch.backends.mkl.is_available() or platform.machine() not in ("x86_64", "AMD64"),
    reason="dropout draws other masks without MKL",
)


@pytest.mark.parametrize("name", inputs.MODELS)
def test_embeddings(name: str, model_folder: Callable[[str], Path]) -> None:
    model = SentenceTransformer(model_folder(name), device="cpu", truncation="count")
    expected = np.load(GOLDEN / "embeddings.npz")[name]
    assert np.abs(model.encode(inputs.TEXTS) - expected).max() <= 1e-6


@pytest.mark.parametrize("mode", inputs.POOLING_MODES)
def test_pooling(mode: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = inputs.with_pooling(tiny("bert"), tmp_path / "model", mode)
    model = SentenceTransformer(folder, device="cpu", truncation="count")
    expected = np.load(GOLDEN / "embeddings.npz")[f"pooling {mode}"]
    assert np.abs(model.encode(inputs.TEXTS, prompt=inputs.PROMPT) - expected).max() <= 1e-6


@pytest.mark.parametrize("name", inputs.LOSSES)
def test_losses_and_gradients(name: str) -> None:
    kind, columns = inputs.LOSSES[name]
    golden = np.load(GOLDEN / "losses.npz")
    embeddings = [torch.from_numpy(values).requires_grad_() for values in inputs.columns(columns)]
    value = getattr(losses, kind)()(embeddings, torch.from_numpy(inputs.labels()))
    value.backward()
    assert abs(value.item() - golden[name]) <= 5e-7
    gradients = np.stack([part.grad.numpy() for part in embeddings])
    assert np.abs(gradients - golden[f"{name}, gradients"]).max() <= 5e-7


@same_dropout
@pytest.mark.filterwarnings("ignore:.* left out of each epoch")
@pytest.mark.filterwarnings("ignore:warmup_steps")  # the default of fit, on little data
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("version", VERSIONS)
def test_replay(version: ReplayVersion, name: str, model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / "replay.json").read_text(encoding="utf-8"))[version][name]
    case = CASES[name]
    values, model = our_run(case, model_folder(case.architecture), version, dtype=torch.float64)
    assert len(values) == len(golden["losses"])
    assert np.abs(np.subtract(values, golden["losses"])).max() <= 1e-6
    model.float().save_pretrained(tmp_path / "saved")
    np.testing.assert_allclose(inputs.summary(tmp_path / "saved"), golden["weights"], rtol=1e-6)
