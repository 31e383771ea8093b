"""Training of LoRA adapters: what changes, resuming to the bit, the command, and what does not go together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import pairs

from minisbert import LoraConfig, SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.cli import main
from minisbert.errors import ConfigError
from minisbert.evaluation import EmbeddingSimilarityEvaluator
from minisbert.modules.lora import adapted_layers
from minisbert.training.checkpoint import Checkpoint

CONFIG = TrainingConfig(epochs=2, batch_size=6, learning_rate=1e-2, log_every=1, save_every=2)  # 8 steps
LORA = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.2)


def trainer(folder: Path, output: Path | None, *, settings: Any = LORA, loss: Any = None, **config: Any) -> Trainer:
    model = SentenceTransformer(folder, device="cpu")
    model.add_adapter(settings)
    columns = pairs()
    evaluator = EmbeddingSimilarityEvaluator(columns["a"], columns["b"], columns["label"])
    made = TrainingConfig(**{**vars(CONFIG), "save_every": CONFIG.save_every if output else None, **config})
    return Trainer(
        model, pairs(), loss=loss or losses.CosineSimilarityLoss(), config=made, evaluator=evaluator, output_dir=output
    )


@pytest.mark.parametrize("architecture", ["bert", "mpnet", "distilbert"])
@pytest.mark.parametrize("config", [{}, {"precision": "bf16"}, {"weight_decay": 0.1}])
def test_only_the_adapter_changes(architecture: str, config: dict[str, Any], tiny: Callable[[str], Path]) -> None:
    run = trainer(tiny(architecture), None, **config)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    history = run.train()
    assert history.steps == 8
    changed = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if ".lora_" in name}


@pytest.mark.parametrize("keep_best", [True, False])
def test_resuming_repeats_the_run_to_the_bit(keep_best: bool, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    options = {"keep_best": keep_best, "eval_every": 3}
    torch.manual_seed(1)
    whole = trainer(tiny("bert"), tmp_path / "whole", **options)
    whole.train()
    checkpoints = Checkpoint.all_in(tmp_path / "whole")
    assert len(checkpoints) == 4
    for checkpoint in checkpoints[:-1]:
        output = shutil.copytree(tmp_path / "whole", tmp_path / f"again-{checkpoint.step}")
        for later in Checkpoint.all_in(output):
            if later.step > checkpoint.step:
                shutil.rmtree(later.folder)
        torch.manual_seed(2)  # draws another adapter, which that of the checkpoint replaces
        again = trainer(tiny("bert"), output, **options)
        again.train(resume=True)
        expected = whole.model.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in again.model.state_dict().items())
    other = trainer(tiny("bert"), tmp_path / "whole", settings=LoraConfig(r=4, lora_alpha=9))
    with pytest.raises((ConfigError, ValueError), match="another one|settings of the model differ"):
        other.train(resume=True)


def test_what_does_not_go_with_an_adapter(tiny: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match=r"got replay='6\.2' and a model with an adapter"):
        trainer(tiny("bert"), None, replay="6.2")
    model = SentenceTransformer(tiny("bert"), device="cpu")
    model.add_adapter(LORA)
    model.transformer.auto_model.embeddings.norm.requires_grad_(True)
    with pytest.raises(ConfigError, match="weights of its base that are not frozen"):
        Trainer(model, pairs(), loss=losses.CosineSimilarityLoss())


# ---- the command ----------------------------------------------------------------------------------------------------


def train(folder: Path, data: Path, output: Path, *options: str) -> int:
    fixed = ["--loss", "cosine", "--epochs", "1", "--batch-size", "6", "--learning-rate", "0.01", "--device", "cpu"]
    return main(["train", "--model", str(folder), "--data", str(data), "--output", str(output), *fixed, *options])


def test_the_command(tiny: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = pairs()
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder, lora = tiny("bert"), ["--lora-r", "2", "--lora-alpha", "4", "--lora-dropout", "0.1"]
    names = ["--lora-target-modules", "query", "intermediate.dense"]
    assert train(folder, data, tmp_path / "adapter", *lora, *names, "--save-every", "2") == 0
    saved = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (saved["r"], saved["lora_alpha"], saved["target_modules"]) == (2, 4, ["query", "intermediate.dense"])
    assert train(folder, data, tmp_path / "adapter", *lora, *names, "--save-every", "2", "--resume") == 0
    assert train(folder, data, tmp_path / "merged", *lora, *names, "--lora-merge") == 0
    model, merged = (SentenceTransformer(tmp_path / name, device="cpu") for name in ("adapter", "merged"))
    assert abs(model.encode(columns["a"]) - merged.encode(columns["a"])).max() < 2e-6
    assert not adapted_layers(merged)
    assert (
        train(folder, data, tmp_path / "pattern", *lora, "--lora-target-modules", r".*layer\.0\..*\.(query|key)") == 0
    )
    capsys.readouterr()
    assert train(folder, data, tmp_path / "none", "--lora-alpha", "4") == 2
    assert "got --lora-alpha without a rank; expected --lora-r too" in capsys.readouterr().err
    assert train(folder, data, tmp_path / "merged", *lora) == 2
    assert "would be taken for the base of the adapter" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "LoRA: train an adapter" in capsys.readouterr().out
