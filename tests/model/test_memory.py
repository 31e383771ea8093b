"""A device whose memory runs out: texts are embedded in pieces, with the same result, and that is told once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from common import scored_pairs
from little_memory import memory_for

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.errors import ConfigError
from minisbert.model import encoding

TEXTS = [" ".join(["cat"] * (1 + i % 13)) + " dog" * (i % 3) for i in range(40)]


# ---- encode ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tiny: Callable[[str], Path]) -> SentenceTransformer:
    return SentenceTransformer(tiny("bert"), device="cpu")


@pytest.mark.parametrize("room", [20, 60, 150])
def test_batches_are_cut(room: int, model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_TOKENS_PER_FORWARD", {"cpu": 200})
    expected = model.encode(TEXTS)
    with memory_for(room) as tried, pytest.warns(UserWarning, match="are split into smaller ones") as told:
        got = model.encode(TEXTS)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert len(told) == 1
    assert sum(size > room for size in tried) <= 4  # not once for each batch


@pytest.mark.parametrize("output_value", ["token_embeddings", None])
def test_other_values_keep_their_order(output_value: Any, model: SentenceTransformer) -> None:
    expected = model.encode(TEXTS, output_value=output_value)
    with memory_for(60), pytest.warns(UserWarning, match="split into smaller"):
        got = model.encode(TEXTS, output_value=output_value)
    for one, other in zip(got, expected, strict=True):
        pairs = [(one, other)] if output_value else [(one[name], other[name]) for name in other]
        for mine, right in pairs:
            np.testing.assert_allclose(mine, right, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.* has too little memory")
def test_a_text_that_is_too_large_by_itself(model: SentenceTransformer) -> None:
    for texts in (TEXTS[:9], ["cat " * 12]):
        with memory_for(9), pytest.raises(ConfigError, match="a text of .* tokens .out of"):
            model.encode(texts)


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that drops nothing."""
    made = tiny_models.build(tmp_path_factory.mktemp("still") / "model", "bert")
    config = json.loads((made / "config.json").read_text())
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    (made / "config.json").write_text(json.dumps(config))
    return made


def train(folder: Path, **settings: Any) -> tuple[list[float], torch.Tensor]:
    first, second, scores = scored_pairs(24)
    model = SentenceTransformer(folder, device="cpu")
    config = TrainingConfig(
        **{"max_steps": 3, "batch_size": 8, "learning_rate": 1e-3, "log_every": 1, "seed": 0, **settings}
    )
    trainer = Trainer(
        model,
        {"a": first, "b": second, "label": scores},
        loss=losses.CosineSimilarityLoss(),
        config=config,
        show_progress_bar=False,
    )
    history = trainer.train()
    seen = [entry[name] for entry in history.entries for name in ("loss", "grad_norm")]
    return seen, torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("in_backward", [False, True])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_gradients_are_the_same(accumulation: int, in_backward: bool, still: Path) -> None:
    expected, right = train(still, gradient_accumulation=accumulation)  # its first batches have 122, 161, 152 tokens
    with (
        memory_for(121 if accumulation == 1 else 155, after_backward=in_backward) as tried,
        pytest.warns(UserWarning, match="in pieces") as told,
    ):
        got, weights = train(still, gradient_accumulation=accumulation)
    assert len(told) == 1
    # Where several batches make an update, there are gradients already when memory runs out.
    assert tried[:2] == ([122, 26] if accumulation == 1 else [122, 161])

    assert got == pytest.approx(expected, rel=1e-4)
    assert float((weights - right).abs().max()) < 2e-4


@pytest.mark.filterwarnings("ignore:.* has too little memory")
def test_too_little_for_one_text_in_training(still: Path) -> None:
    with memory_for(5), pytest.raises(ConfigError, match="lower batch_size or max_seq_length"):
        train(still)
