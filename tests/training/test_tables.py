"""AdamW on the rows that ever had a gradient, against torch's over the whole table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from minisbert import SentenceTransformer, Trainer, TrainingConfig, kernels, losses
from minisbert.training import builder as builders
from minisbert.training.adamw import EmbeddingAdamW
from minisbert.training.optimization import clip_gradients


@pytest.mark.parametrize("built", [True, False])
def test_it_is_adamw(built: bool, request: pytest.FixtureRequest) -> None:
    if built:
        request.getfixturevalue("with_native")
    torch.manual_seed(0)
    dense, sparse = nn.Embedding(40, 32), nn.Embedding(40, 32, sparse=True)
    sparse.load_state_dict(dense.state_dict())
    optimizer = torch.optim.AdamW(dense.parameters(), lr=1e-2, weight_decay=0.0)
    ours = EmbeddingAdamW(sparse, lr=1e-2, betas=(0.9, 0.999), eps=1e-8)
    with kernels.use("auto" if built else "reference"):
        for step in range(12):
            ids = torch.randint(3 * step + 3, (20,))
            pull = torch.randn(20, 32)
            for table, which in ((dense, optimizer), (sparse, ours)):
                for _ in range(2):  # gradients of several batches add up
                    (table(ids) * pull).sum().backward()
                clip_gradients([table.weight], 3.0)
                which.step()
                which.zero_grad()
            if step == 6:  # a state that was saved and loaded goes on
                again = EmbeddingAdamW(sparse, lr=1e-2, betas=(0.9, 0.999), eps=1e-8)
                again.load_state_dict(ours.state_dict())
                ours = again
    torch.testing.assert_close(sparse.weight, dense.weight, rtol=0, atol=2e-6)
    assert len(ours.param_groups[0]["rows"]) <= 36
    assert torch.equal(sparse.weight[38:], dense.weight[38:])


def test_clip_is_torch_s() -> None:
    torch.manual_seed(0)
    ours, theirs = ([nn.Parameter(torch.randn(5, 4)) for _ in range(3)] for _ in range(2))
    for a, b in zip(ours, theirs, strict=True):
        a.grad = torch.randn(5, 4)
        b.grad = a.grad.clone()
    for limit in (float("inf"), 1.0):
        assert torch.equal(clip_gradients(ours, limit), torch.nn.utils.clip_grad_norm_(theirs, limit))
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))


def test_training_with_it_is_training_without(tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"a": [f"cat {n} mat" for n in range(24)], "b": [f"dog {n} sea" for n in range(24)]}
    weights = []
    for table in (builders.sparse_word_table, lambda model: None):
        monkeypatch.setattr(builders, "sparse_word_table", table)
        model = SentenceTransformer(tiny("bert"), device="cpu")
        config = TrainingConfig(epochs=2, batch_size=6, learning_rate=1e-3, gradient_accumulation=2, max_grad_norm=0.5)
        loss = losses.MultipleNegativesRankingLoss()
        Trainer(model, rows, loss=loss, config=config, show_progress_bar=False).train()
        assert not model.transformer.auto_model.embeddings.word.sparse  # type: ignore[union-attr]
        weights.append(model.transformer.auto_model.embeddings.word.weight.detach())  # type: ignore[union-attr]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-5)
    untouched = (weights[0] == SentenceTransformer(tiny("bert")).transformer.auto_model.embeddings.word.weight).all(1)  # type: ignore[union-attr]
    assert 0 < untouched.sum() < len(untouched)


def test_rows_of_any_size(with_native: None) -> None:
    """Sizes that the fused operation does not take go through the definition."""
    torch.manual_seed(0)
    found = []
    for mode in ("auto", "reference"):
        tables = [torch.ones(6, 24) for _ in range(3)]
        rows, slopes = torch.tensor([1, 4]), torch.linspace(-1, 1, 48).view(2, 24)
        with kernels.use(mode):  # type: ignore[arg-type]
            kernels.adamw_rows_(tables[0], slopes, *tables[1:], rows, kernels.AdamWStep(0.1, 0.9, 0.99, 1e-8, 1))
        found.append(tables)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert torch.equal(found[0][0][0], torch.ones(24))
    assert not torch.equal(found[0][0][1], torch.ones(24))
