"""Training whose numbers are no longer finite: it ends, says where, and saves nothing over what is good."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import pairs

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.cli import main
from minisbert.data.sampling import EpochSampler
from minisbert.errors import ConfigError, DivergenceError
from minisbert.training.checkpoint import Checkpoint
from minisbert.training.guards import MAX_SKIPPED, SkippedSteps, all_finite

CONFIG = TrainingConfig(max_steps=20, batch_size=6, learning_rate=1e-3, log_every=100, save_every=3)


class Failing(losses.CosineSimilarityLoss):
    """Infinite in the steps that `fails` chooses, counted from 1."""

    def __init__(self, fails: Callable[[int], bool]) -> None:
        super().__init__()
        self.fails, self.step = fails, 0

    def forward(self, embeddings: Any, labels: Any = None) -> torch.Tensor:
        self.step += 1
        return super().forward(embeddings, labels) * (torch.inf if self.fails(self.step) else 1.0)


@pytest.fixture
def folder(tiny: Callable[[str], Path]) -> Path:
    return tiny("bert")


def trainer(
    folder: Path, output: Path | None, fails: Callable[[int], bool], *, data: Any = None, **settings: Any
) -> Trainer:
    return Trainer(
        SentenceTransformer(folder, device="cpu"),
        data or pairs(),
        loss=Failing(fails),
        config=replace(CONFIG, **{"save_every": CONFIG.save_every if output else None, **settings}),
        output_dir=output,
        show_progress_bar=False,
    )


def test_steps_in_a_row_are_counted() -> None:
    steps = SkippedSteps(100)
    assert steps.first() is None
    for part in ([1.0, *[torch.inf] * 9], [2.0, torch.nan], [torch.nan] * 8, []):
        for norm in part:
            steps.add(torch.tensor(norm))
        assert steps.first() is None
    kept = torch.tensor(torch.inf)
    steps.add(kept)
    kept.fill_(0)  # as a recorded update does
    assert MAX_SKIPPED == 10
    assert steps.first() == 112


def test_many_skipped_steps_end_training(folder: Path, tmp_path: Path) -> None:
    made = trainer(folder, tmp_path, lambda step: step >= 6)
    with pytest.raises(DivergenceError) as raised:
        made.train()
    sampler = EpochSampler([made._sets[0].rows], batch_size=6, seed=CONFIG.seed)
    rows = list(sampler.epoch(1))[1].rows.tolist()  # four steps to an epoch
    assert str(raised.value).startswith(
        f"the gradients of 10 steps in a row are not finite, first those of step 6: rows {', '.join(map(str, rows))} "
        f"of the data (counted from 0); expected finite gradients"
    )
    assert str(raised.value).endswith(f"the last good checkpoint is {tmp_path / 'checkpoint-3'}")
    for checkpoint in Checkpoint.all_in(tmp_path):
        assert all_finite(SentenceTransformer(checkpoint.folder, device="cpu").parameters())


def test_data_sets_are_named_and_there_may_be_no_checkpoint(folder: Path) -> None:
    made = trainer(
        folder, None, lambda step: True, data={"one": pairs(), "two": pairs()}, gradient_accumulation=3, batch_size=20
    )
    with pytest.raises(DivergenceError, match="of step 1: rows") as raised:
        made.train()
    message = str(raised.value)
    assert message.count(" and 4 more of data set 'one'") == 1 or message.count(" and 4 more of data set 'two'") == 1
    assert message.count("; rows ") == 2
    assert message.endswith("lower learning_rate; there is no checkpoint")


def test_nine_are_borne(folder: Path) -> None:
    with pytest.warns(UserWarning, match="18 of 20 steps were skipped, because their gradients were not finite: train"):
        history = trainer(folder, None, lambda step: step % 10 != 0).train()
    assert (history.steps, history.skipped_steps) == (20, 18)


def test_that_all_steps_were_skipped_is_told(folder: Path) -> None:
    with pytest.warns(UserWarning, match="all 5 steps were skipped"):
        trainer(folder, None, lambda step: True, max_steps=5).train()


@pytest.mark.parametrize(
    ("step", "saved", "message"),
    [
        (4, [3], "after step 6, and are not saved.*; the last good checkpoint is .*checkpoint-3$"),
        (7, [3, 6], "after step 7, and are not saved.*; the last good checkpoint is .*checkpoint-6$"),
    ],
)
def test_weights_that_are_not_finite_are_not_saved(
    step: int, saved: list[int], message: str, folder: Path, tmp_path: Path
) -> None:
    model = SentenceTransformer(folder, device="cpu")

    def break_weights(entry: dict[str, float]) -> None:
        if entry["step"] == step:
            with torch.no_grad():
                next(model.parameters())[-1, 0] = torch.inf

    made = Trainer(
        model,
        pairs(),
        loss=losses.CosineSimilarityLoss(),
        config=replace(CONFIG, max_steps=7, log_every=1, save_total_limit=2),
        output_dir=tmp_path,
        on_log=break_weights,
        show_progress_bar=False,
    )
    with pytest.raises(DivergenceError, match=message):
        made.train()
    assert [checkpoint.step for checkpoint in Checkpoint.all_in(tmp_path)] == saved


def test_a_command_saves_no_broken_model(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = pairs()
    rows = zip(columns["a"], columns["b"], columns["label"], strict=True)
    (tmp_path / "pairs.tsv").write_text("a\tb\tlabel\n" + "".join(f"{a}\t{b}\t{label}\n" for a, b, label in rows))
    command = ["train", "--model", str(folder), "--data", str(tmp_path / "pairs.tsv"), "--loss", "cosine", "--device"]
    command += ["cpu", "--max-steps", "2", "--learning-rate", "1e38", "--output", str(tmp_path / "out")]
    assert main(command) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("minisbert: error: the weights are not finite after step 2, and are not saved")
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_loss_that_is_not_finite_changes_nothing(folder: Path) -> None:
    class NotANumber(losses.CosineSimilarityLoss):
        def forward(self, embeddings: Any, labels: Any = None) -> torch.Tensor:
            return super().forward(embeddings, labels) + math.nan  # whose gradients are finite

    with pytest.raises(DivergenceError, match="10 steps in a row are not finite"):
        Trainer(
            SentenceTransformer(folder, device="cpu"),
            {"a": ["a cat", "the dog"], "b": ["one", "two"], "label": [0.5, 1.0]},
            loss=NotANumber(),
            config=TrainingConfig(batch_size=1, max_steps=12),
            show_progress_bar=False,
        ).train()


@pytest.mark.parametrize("value", [None, 5, (1,), torch.zeros(2, requires_grad=True), torch.tensor(1.0)])
def test_a_loss_that_gives_no_loss(value: Any, folder: Path) -> None:
    class Odd(losses.CosineSimilarityLoss):
        def forward(self, embeddings: Any, labels: Any = None) -> Any:
            return value

    with pytest.raises(ConfigError, match="expected one number that depends on the embeddings"):
        Trainer(
            SentenceTransformer(folder, device="cpu"),
            {"a": ["a cat"], "b": ["one"], "label": [0.5]},
            loss=Odd(),
            show_progress_bar=False,
        ).train()
