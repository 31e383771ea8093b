"""Checkpoints: whole or not there, found out when damaged, and exact in every way of training."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import log, pairs

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.errors import ConfigError, InputError
from minisbert.evaluation import EmbeddingSimilarityEvaluator
from minisbert.storage import files
from minisbert.training.checkpoint import Checkpoint, newest_valid, prune, seal

CONFIG = TrainingConfig(epochs=2, batch_size=6, learning_rate=1e-3, log_every=1, save_every=2)  # 8 steps


@pytest.fixture
def folder(tiny: Callable[[str], Path]) -> Path:
    return tiny("bert")


def trainer(folder: Path, output: Path, config: TrainingConfig = CONFIG, **options: Any) -> Trainer:
    model = options.pop("model", None) or SentenceTransformer(folder, device="cpu")
    data = options.pop("data", None) or pairs()
    return Trainer(
        model,
        data,
        loss=losses.CosineSimilarityLoss(),
        config=config,
        output_dir=output,
        show_progress_bar=False,
        **options,
    )


def train(
    folder: Path, output: Path, config: TrainingConfig = CONFIG, *, resume: Any = False, **options: Any
) -> Trainer:
    made = trainer(folder, output, config, **options)
    made.train(resume=resume)
    return made


def weights(of: Trainer) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in of.model.parameters()])


def names(output: Path) -> list[str]:
    return sorted(path.name for path in output.iterdir())


# ---- going on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"replay": "6.2", "save_every": 3},  # in the middle of an epoch
        {"replay": "5.1", "gradient_accumulation": 2},  # at its end, and at that of the run
        {"replay": "6.2", "batch_sampler": "no_duplicates", "save_every": 4},
        {"weight_decay": 0.01, "warmup_steps": 0.3},
        {"precision": "bf16", "gradient_accumulation": 3, "max_grad_norm": 0.1},
        {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 2}, "warmup_steps": 1},
        {"metric_for_best_model": "eval_loss", "replay": "6.2", "save_every": 3},
        {"dataset_weights": {"one": 1, "two": 3}},
        {"batch_sampler": "group_by_label", "batch_size": 4, "epochs": 3},
        {"freeze": ["embeddings", ".*bias"], "learning_rate_mapping": {"layer.0": 1e-4}, "prompts": {"a": "why: "}},
        {"learning_rate_mapping": {"word_embeddings": 1e-4, "layer.1": 0.0}, "replay": "6.2", "prompts": "why: "},
        # With this threshold no evaluation counts as a gain.
        {
            **{"metric_for_best_model": "eval_loss", "eval_every": 1},
            **{"early_stopping_patience": 4, "early_stopping_threshold": 100.0},
        },
    ],
    ids=str,
)
def test_every_checkpoint_leads_to_the_same_end(settings: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    several = settings.get("batch_sampler") == "no_duplicates" or "dataset_weights" in settings
    data = {"one": pairs(24), "two": pairs(8)} if several else pairs()
    if settings.get("batch_sampler") == "group_by_label":
        data["label"] = [row % 4 / 4 for row in range(24)]
    columns = pairs()
    config = replace(CONFIG, **{"keep_best": True, "eval_every": 3, "log_every": 4, **settings})

    def run(output: Path, *, resume: bool) -> Trainer:
        evaluator = EmbeddingSimilarityEvaluator(columns["a"], columns["b"], columns["label"])
        held_out = pairs(9) if "metric_for_best_model" in settings else None
        return train(folder, output, config, resume=resume, data=data, evaluator=evaluator, eval_data=held_out)

    whole = run(tmp_path / "whole", resume=False)
    if config.early_stopping_patience is not None:
        assert log(tmp_path / "whole")[-1]["step"] < 8
    checkpoints = Checkpoint.all_in(tmp_path / "whole")
    assert len(checkpoints) >= 2
    for checkpoint in checkpoints:
        output = tmp_path / "again"
        shutil.copytree(tmp_path / "whole", output)
        for later in Checkpoint.all_in(output):
            if later.step > checkpoint.step:
                shutil.rmtree(later.folder)
        assert torch.equal(weights(run(output, resume=True)), weights(whole)), checkpoint
        assert log(output) == log(tmp_path / "whole")
        shutil.rmtree(output)


def test_a_log_is_cut_back_to_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path)
    expected = log(tmp_path)
    for step in (6, 8):
        shutil.rmtree(tmp_path / f"checkpoint-{step}")
    with (tmp_path / "train_log.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')  # where a process ended
    seen: list[dict[str, float]] = []
    train(folder, tmp_path, resume=True, on_log=seen.append)
    assert log(tmp_path) == expected
    assert [entry["step"] for entry in seen] == [5, 6, 7, 8]


# ---- damage ---------------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a bit of the weights": ("model.safetensors is damaged", lambda path: flip(path / "model.safetensors")),
    "a bit of the state": ("training_state.pt is damaged", lambda path: flip(path / "training_state.pt")),
    "a shorter file": ("model.safetensors is damaged", lambda path: os.truncate(path / "model.safetensors", 900)),
    "no tokenizer": ("tokenizer.json is missing", lambda path: (path / "tokenizer.json").unlink()),
    "no pooling": (r"config.json is missing", lambda path: shutil.rmtree(path / "1_Pooling")),
    "no list of files": ("checkpoint.json is missing", lambda path: (path / "checkpoint.json").unlink()),
    "half a list": ("checkpoint.json is missing or dam", lambda path: os.truncate(path / "checkpoint.json", 99)),
    "another list": ("missing or damaged", lambda path: void((path / "checkpoint.json").write_text('{"files": [1]}'))),
    "nothing": ("checkpoint.json is missing", lambda path: [file.unlink() for file in path.glob("*.*")] and None),
}


def void(value: object) -> None:
    pass


@pytest.fixture(scope="module")
def finished(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    output = tmp_path_factory.mktemp("finished")
    return output, weights(train(tiny("bert"), output))


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_passed_over(
    kind: str, finished: tuple[Path, torch.Tensor], folder: Path, tmp_path: Path
) -> None:
    message, damage = DAMAGES[kind]
    output = tmp_path / "run"
    shutil.copytree(finished[0], output)
    damage(output / "checkpoint-8")
    with pytest.raises(InputError, match=f"{message}.*; resume from an earlier checkpoint"):
        train(folder, tmp_path / "other", resume=output / "checkpoint-8")
    with pytest.warns(UserWarning, match=f"checkpoint-8.*{message}.*; resuming .*checkpoint-6 instead"):
        again = train(folder, output, resume=True)
    assert torch.equal(weights(again), finished[1])
    assert Checkpoint(output / "checkpoint-8", 8).damage() is None  # it was written anew


def test_where_all_are_damaged_nothing_is_started(
    finished: tuple[Path, torch.Tensor], folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    shutil.copytree(finished[0], output)
    for checkpoint in Checkpoint.all_in(output):
        flip(checkpoint.folder / "model.safetensors")
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    with pytest.raises(
        InputError, match=r"every checkpoint in .* is damaged: .*checkpoint-8/model.safetensors is damaged.*start again"
    ):
        train(folder, output, resume=True)
    assert before == {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_files_that_somebody_adds_are_nothing_to_a_checkpoint(
    finished: tuple[Path, torch.Tensor], folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished[0] / "checkpoint-4", tmp_path / "checkpoint-4")
    (tmp_path / "checkpoint-4" / "notes.txt").write_text("a good one")
    assert torch.equal(weights(train(folder, tmp_path, resume=True)), finished[1])


# ---- another run ----------------------------------------------------------------------------------------------------


def test_another_model_of_the_same_shape_is_noticed(
    finished: tuple[Path, torch.Tensor], folder: Path, tmp_path: Path
) -> None:
    checkpoint = finished[0] / "checkpoint-4"
    other = SentenceTransformer(folder, device="cpu")
    with torch.no_grad():
        next(other.parameters())[0, 0] += 1
    with pytest.raises(ConfigError, match="cannot resume .*: the model to start from has other weights; expected the"):
        train(folder, tmp_path, resume=checkpoint, model=other)
    other = SentenceTransformer(folder, device="cpu")
    other.transformer.config["hidden_dropout_prob"] = 0.2
    config = replace(CONFIG, seed=1, log_every=3)
    with pytest.raises(ConfigError, match="seed was 42 and is 1; the settings of the model differ; expected"):
        train(folder, tmp_path, config, resume=checkpoint, model=other)
    # The model in the checkpoint is what the run goes on with anyway.
    model = SentenceTransformer(checkpoint, device="cpu")
    assert torch.equal(weights(train(folder, tmp_path, resume=checkpoint, model=model)), finished[1])


def test_a_trainer_knows_where_its_run_began(folder: Path, tmp_path: Path) -> None:
    expected = weights(train(folder, tmp_path / "whole"))

    class FailureError(Exception):
        pass

    def fail(entry: dict[str, float]) -> None:
        if entry["step"] == 5 and not failed:
            failed.append(1)
            raise FailureError

    failed: list[int] = []
    made = trainer(folder, tmp_path / "run", on_log=fail)
    with pytest.raises(FailureError):
        made.train()
    made.train(resume=True)  # of a model that has changed meanwhile
    assert torch.equal(weights(made), expected)


def test_checkpoints_of_a_run_are_not_mixed_with_those_of_another(
    finished: tuple[Path, torch.Tensor], folder: Path
) -> None:
    with pytest.raises(ConfigError, match="checkpoints of an earlier run, up to checkpoint-8; expected none"):
        train(folder, finished[0], replace(CONFIG, save_every=None))  # it would save one when it is interrupted


def test_best_weights_that_are_gone_are_missed_at_the_start(folder: Path, tmp_path: Path) -> None:
    columns = pairs()
    judge = EmbeddingSimilarityEvaluator(columns["a"], columns["b"], columns["label"])
    config = replace(CONFIG, keep_best=True, eval_every=1)
    train(folder, tmp_path, config, evaluator=judge)
    shutil.rmtree(tmp_path / "best")
    with pytest.raises(InputError, match="best is missing; expected the best weights so far there"):
        train(folder, tmp_path, config, evaluator=judge, resume=tmp_path / "checkpoint-4")


def test_it_is_said_that_there_is_no_checkpoint(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = SentenceTransformer(folder, device="cpu")
    config = TrainingConfig(max_steps=1)
    Trainer(model, pairs(), loss=losses.CosineSimilarityLoss(), config=config, output_dir=tmp_path).train(resume=True)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "start" in line]
    assert line.startswith(f"starting from the first step, as there is no checkpoint in {tmp_path}: 24 rows")


# ---- writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 2])
def test_the_last_good_checkpoint_is_never_removed(
    keep: int, finished: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    shutil.copytree(finished[0], output)
    newest = Checkpoint(output / "checkpoint-6", 6)
    flip(newest.folder / "training_state.pt")
    with pytest.raises(InputError, match="training_state.pt is damaged.*: resume from .*checkpoint-4 in another place"):
        prune(output, newest=newest, keep=keep)
    assert len(Checkpoint.all_in(output)) == 4
    seal(newest.folder)
    prune(output, newest=newest, keep=keep)
    # What is later than the newest is of an earlier try, and no reason to remove anything.
    kept = ["checkpoint-6", "checkpoint-8"] if keep == 1 else ["checkpoint-4", "checkpoint-6", "checkpoint-8"]
    assert [name for name in names(output) if "checkpoint" in name] == kept


def test_damaged_checkpoints_do_not_crowd_out_good_ones(
    finished: tuple[Path, torch.Tensor], folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    shutil.copytree(finished[0], output)
    for step in (6, 8):
        flip(output / f"checkpoint-{step}" / "model.safetensors")
    seen: list[int | None] = []

    def look(entry: dict[str, float]) -> None:
        whole = [one.step for one in Checkpoint.all_in(output) if one.damage() is None]
        seen.append(max(whole) if whole else None)

    config = replace(CONFIG, save_total_limit=1)
    with pytest.warns(UserWarning, match="instead"):
        train(folder, output, config, resume=True, on_log=look)
    assert seen == [4, 4, 6, 6]
    assert [name for name in names(output) if "checkpoint" in name] == ["checkpoint-8"]


class _OneFailure:
    """A function that fails at one of its calls, as it would where the disk is full."""

    def __init__(self, real: Callable[..., Any], at: int) -> None:
        self.real, self.at, self.calls = real, at, 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        if self.calls == self.at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.real(*arguments, **options)


@pytest.mark.parametrize(
    ("where", "calls"), [("fsync", (1, 4, 24)), ("replace", (1,)), ("rename", (1, 2)), ("mkdir", (4, 6))]
)
def test_a_save_that_fails_leaves_what_there_was(
    where: str,
    calls: tuple[int, ...],
    finished: tuple[Path, torch.Tensor],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "run"
    shutil.copytree(finished[0] / "checkpoint-4", output / "checkpoint-4")
    for at in calls:
        failing = _OneFailure(getattr(os, where), at)
        with monkeypatch.context() as patch:
            patch.setattr(os, where, failing)
            accessor = getattr(Path, "_accessor", None)  # of Python 3.10: what os had when it was imported
            if hasattr(accessor, where):
                patch.setattr(type(accessor), where, staticmethod(failing))
            with pytest.raises(InputError, match="cannot write .*No space left on device"):
                train(folder, output, resume=True)
        assert failing.calls >= at
        whole, damages = newest_valid(output)
        assert whole is not None
        assert not damages
        assert not [name for name in names(output) if name.startswith(".")]
    assert torch.equal(weights(train(folder, output, resume=True)), finished[1])


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux which file a handle is of")
def test_a_checkpoint_has_its_name_only_when_it_is_on_the_disk(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []
    missing: list[set[Path]] = []
    rename, fsync = Path.rename, os.fsync

    def note(handle: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{handle}").readlink())
        fsync(handle)

    def renamed(self: Path, target: Path) -> Path:
        missing.append({self, *self.rglob("*")} - set(flushed))
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "rename", renamed)
    model = SentenceTransformer(folder, device="cpu")
    saved = Checkpoint.save(tmp_path, model, step=1, state={"step": 1})
    assert missing == [set()]
    assert flushed[-1] == tmp_path
    listed = json.loads((saved.folder / "checkpoint.json").read_text())["files"]
    assert {saved.folder / name for name in listed} == {
        path for path in saved.folder.rglob("*") if path.is_file() and path.name != "checkpoint.json"
    }


def test_what_an_end_in_the_middle_left_is_removed(
    finished: tuple[Path, torch.Tensor], folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    shutil.copytree(finished[0] / "checkpoint-4", output / "checkpoint-4")
    half = files.temporary_path(output / "checkpoint-6")
    for left in (half, files.temporary_path(half), files.temporary_path(output / "best"), files.temporary_path(output)):
        (left / "1_Pooling").mkdir(parents=True)
        (left / "model.safetensors").write_text("half")
    files.temporary_path(output / "train_log.jsonl").write_text("half")
    stays = [output / ".config-0123456789ab", output / ".checkpoint-6-of-mine", tmp_path / ".runs-0123456789ab"]
    for folder_of_others in stays:
        folder_of_others.mkdir()
    train(folder, output, resume=True)
    hidden = [path for place in (tmp_path, output) for path in place.iterdir() if path.name.startswith(".")]
    assert sorted(hidden) == sorted(stays)


def test_an_error_names_the_checkpoint_and_not_where_it_is_made(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SentenceTransformer(folder, device="cpu")
    monkeypatch.setattr(os, "fsync", _OneFailure(os.fsync, 1))
    with pytest.raises(InputError) as raised:
        Checkpoint.save(tmp_path, model, step=7, state={})
    assert str(raised.value).startswith(f"cannot write {tmp_path / 'checkpoint-7'} (No space left on device); expected")


def test_a_text_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    files.replace_text(path, "old")
    monkeypatch.setattr(os, "fsync", _OneFailure(os.fsync, 1))
    with pytest.raises(InputError, match="cannot write .*log .No space left"):
        files.replace_text(path, "new and longer")
    assert (path.read_text(), names(tmp_path)) == ("old", ["log"])
    files.replace_text(path, "new")
    assert (path.read_text(), names(tmp_path)) == ("new", ["log"])


def test_a_file_system_without_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    with files.replacing_folder(tmp_path / "folder") as place:
        (place / "file").write_text("content")
    assert (tmp_path / "folder" / "file").read_text() == "content"


def test_one_run_at_a_time_in_a_folder(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")

    def begin_another(entry: dict[str, float]) -> None:
        with pytest.raises(ConfigError, match="another run writes to"):
            train(folder, tmp_path / "run", resume=True)

    train(folder, tmp_path / "run", on_log=begin_another)
    train(folder, tmp_path / "other")


def test_moments_of_another_shape_are_refused(
    finished: tuple[Path, torch.Tensor], folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    shutil.copytree(finished[0] / "checkpoint-4", output / "checkpoint-4")
    file = output / "checkpoint-4" / "training_state.pt"
    state = torch.load(file, weights_only=True)
    for moments in state["optimizer"][0]["state"].values():
        moments["exp_avg"] = torch.zeros(3)
    torch.save(state, file)
    seal(file.parent)
    with pytest.raises(InputError, match="does not fit this run"):
        train(folder, output, resume=True)


def test_a_list_of_files_leads_nowhere_else(finished: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    copy = tmp_path / "checkpoint-4"
    shutil.copytree(finished[0] / "checkpoint-4", copy)
    (tmp_path / "elsewhere").write_text("x")
    content = json.loads((copy / "checkpoint.json").read_text())
    content["files"]["../elsewhere"] = {"bytes": 1, "sha256": "0"}
    (copy / "checkpoint.json").write_text(json.dumps(content))
    assert "elsewhere is missing" in (Checkpoint(copy, 4).damage() or "")
    (copy / "checkpoint.json").write_text('{"files": {}}')
    assert Checkpoint(copy, 4).damage()
