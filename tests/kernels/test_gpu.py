"""The same on a CUDA device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch

from minisbert import SentenceTransformer, Trainer, TrainingConfig, cuda_graphs, losses

pytestmark = pytest.mark.gpu
TEXTS = ["a cat sat on the mat", "one", "", "why is the sky blue and the sea not", "one two three"] * 5


def train(
    folder: Path, *, resume: bool = False, output: Path | None = None, **settings: Any
) -> tuple[list[float], Any]:
    rows = [(TEXTS[i], TEXTS[i + 1], i % 5 / 4) for i in range(20)]
    model = SentenceTransformer(folder, device="cuda")
    entries: list[dict[str, float]] = []
    config = TrainingConfig(epochs=3, batch_size=4, learning_rate=1e-3, log_every=1, **settings)
    loss = losses.CosineSimilarityLoss()
    Trainer(
        model, rows, loss=loss, config=config, output_dir=output, on_log=entries.append, show_progress_bar=False
    ).train(resume=resume)
    return [entry["loss"] for entry in entries], model


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float16", 5e-3), ("bfloat16", 5e-2)])
def test_encode(architecture: str, dtype: Any, bound: float, tiny: Callable[[str], Path]) -> None:
    expected = SentenceTransformer(tiny(architecture), device="cpu").encode(TEXTS)
    model = SentenceTransformer(tiny(architecture), device="cuda", dtype=dtype)
    assert np.abs(model.encode(TEXTS) - expected).max() < bound
    assert model.encode(TEXTS, convert_to_tensor=True).is_cuda
    assert model.encode(TEXTS[0], device="cpu").shape == (32,)


def test_many_texts(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    texts = [" ".join(TEXTS[i % 5 : i % 5 + 1 + i % 7]) for i in range(6_000)]
    expected = SentenceTransformer(tiny("bert"), device="cpu").encode(texts)
    model = SentenceTransformer(tiny("bert"), device="cuda")
    out = np.memmap(tmp_path / "out", np.float32, "w+", shape=expected.shape)
    for got in (model.encode(texts), model.encode(texts, batch_size=64), model.encode(texts, out=out)):
        assert np.abs(got - expected).max() < 1e-5
    tensor = model.encode(texts, convert_to_tensor=True, truncate_dim=8)
    assert np.abs(tensor.cpu().numpy() - expected[:, :8]).max() < 1e-5
    assert not tensor.is_inference()
    for values in model.encode(texts[:9], output_value=None):
        assert not any(value.is_inference() for value in values.values())


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_mixed_precision_follows_fp32(precision: Any, tiny: Callable[[str], Path]) -> None:
    full, _ = train(tiny("bert"))
    mixed, model = train(tiny("bert"), precision=precision)
    np.testing.assert_allclose(mixed, full, rtol=0.2, atol=0.02)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_resume_follows_the_whole_run(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    whole, _ = train(tiny("bert"), precision="fp16", save_every=7, output=tmp_path)
    again, _ = train(tiny("bert"), precision="fp16", save_every=7, output=tmp_path, resume=True)
    np.testing.assert_allclose(again, whole[-len(again) :], rtol=1e-3)
    assert len(again) == 1


def test_global_generators_are_left_alone(tiny: Callable[[str], Path]) -> None:
    torch.cuda.manual_seed(5)
    before = torch.cuda.get_rng_state()
    train(tiny("bert"))
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore")  # torch.compile warns of its own doings
def test_compiled(tiny: Callable[[str], Path]) -> None:
    plain, _ = train(tiny("bert"))
    compiled, _ = train(tiny("bert"), compile=True)
    np.testing.assert_allclose(compiled[0], plain[0], rtol=0.2)


def scored_rows() -> list[tuple[str, str, float]]:
    words = "a cat sat on the mat why is the sky blue and sea not one two three".split()
    texts = [" ".join(words[i % 9 : i % 9 + 2 + i % 7]) for i in range(65)]
    return [(texts[i], texts[i + 1], i % 5 / 4) for i in range(64)]


def weights_after(folder: Path, loss: Any, **settings: Any) -> tuple[list[float], torch.Tensor]:
    model = SentenceTransformer(folder, device="cuda")
    config = TrainingConfig(epochs=4, batch_size=8, log_every=1, **settings)
    entries: list[dict[str, float]] = []
    Trainer(model, scored_rows(), loss=loss, config=config, on_log=entries.append, show_progress_bar=False).train()
    return [entry["loss"] for entry in entries], torch.cat([weight.detach().flatten() for weight in model.parameters()])


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float16", 2e-3), ("bfloat16", 1.5e-2)])
def test_the_real_model(minilm: Path, varied_texts: list[str], dtype: Any, bound: float) -> None:
    expected = SentenceTransformer(minilm, device="cpu").encode(varied_texts)
    model = SentenceTransformer(minilm, device="cuda", dtype=dtype)
    for _ in range(3):  # as it is, recorded, replayed
        assert np.abs(model.encode(varied_texts) - expected).max() < bound
    out = np.zeros_like(expected)
    assert model.encode(varied_texts, out=out) is out
    assert np.abs(out - expected).max() < bound
    assert next(model.parameters()).dtype == getattr(torch, dtype)


def test_graphs_give_the_bits_of_what_they_record(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SentenceTransformer(minilm, device="cuda")
    for _ in range(2):
        model.encode(TEXTS)
    replayed = model.encode(TEXTS)
    monkeypatch.setattr(cuda_graphs, "CudaGraphs", lambda device: lambda work: work)
    assert np.array_equal(replayed, SentenceTransformer(minilm, device="cuda").encode(TEXTS))


@pytest.mark.filterwarnings("ignore:MultipleNegatives")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("loss", [losses.CosineSimilarityLoss, losses.MultipleNegativesRankingLoss])
def test_recorded_training_has_the_bits_of_eager_training(
    minilm: Path, monkeypatch: pytest.MonkeyPatch, loss: Any, precision: Any
) -> None:
    from minisbert.training import gpu

    recorded, weights = weights_after(minilm, loss(), precision=precision)
    monkeypatch.setattr(gpu, "CudaGraphs", lambda device: lambda work: work)
    eager, right = weights_after(minilm, loss(), precision=precision)
    assert recorded == eager
    assert torch.equal(weights, right)


def test_weights_that_training_changed_are_those_that_embed(minilm: Path) -> None:
    model = SentenceTransformer(minilm, device="cuda")
    before = model.encode(TEXTS)
    config = TrainingConfig(epochs=2, batch_size=8, learning_rate=1e-3)
    loss = losses.CosineSimilarityLoss()
    Trainer(model, scored_rows(), loss=loss, config=config, show_progress_bar=False).train()
    after = model.encode(TEXTS)
    assert np.abs(after - before).max() > 1e-2
    assert np.abs(model.to("cpu").encode(TEXTS) - after).max() < 1e-4


def test_threads_share_a_model(minilm: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    model = SentenceTransformer(minilm, device="cuda")
    alone = [model.encode(TEXTS[: 1 + i]) for i in range(16)]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda i: model.encode(TEXTS[: 1 + i % 16]), range(64)))
    for i, found in enumerate(together):
        assert np.abs(found - alone[i % 16]).max() < 1e-6


def test_pieces_are_embedded_with_the_same_draws_twice(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minisbert.training import gpu

    def once(function: Callable[..., torch.Tensor], *inputs: Any, use_reentrant: bool) -> torch.Tensor:
        return function(*inputs)

    monkeypatch.setattr(gpu, "MAX_TOKENS", 32)
    twice, weights = weights_after(minilm, losses.CosineSimilarityLoss(), learning_rate=1e-4)
    monkeypatch.setattr(gpu, "checkpoint", once)
    expected, right = weights_after(minilm, losses.CosineSimilarityLoss(), learning_rate=1e-4)
    assert twice == pytest.approx(expected, rel=1e-4)
    assert float((weights - right).abs().max()) < 1e-4
