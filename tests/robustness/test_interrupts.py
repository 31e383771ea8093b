"""Ctrl-C and SIGTERM while training: the step is finished, a checkpoint is there, and going on gives the same end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import log, pairs

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.cli import main
from minisbert.errors import InputError, TrainingInterrupted, TrainingTerminated
from minisbert.training.checkpoint import Checkpoint
from minisbert.training.guards import StopSignal
from minisbert.training.history import TrainingLog

CONFIG = TrainingConfig(epochs=2, batch_size=6, learning_rate=1e-3, log_every=1)  # 8 steps
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Those of Python before, and after."""
    before = [signal.getsignal(number) for number in SIGNALS]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    after = [signal.getsignal(number) for number in SIGNALS]
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)
    assert after == [signal.default_int_handler, signal.SIG_DFL]


@pytest.fixture
def folder(tiny: Callable[[str], Path]) -> Path:
    return tiny("bert")


def sent_at(step: int, *numbers: int) -> Callable[[dict[str, float]], None]:
    def send(entry: dict[str, float]) -> None:
        if entry["step"] == step:
            for number in numbers:
                signal.raise_signal(number)

    return send


def trainer(folder: Path, output: Path | None, *, config: TrainingConfig = CONFIG, on_log: Any = None) -> Trainer:
    return Trainer(
        SentenceTransformer(folder, device="cpu"),
        pairs(),
        loss=losses.CosineSimilarityLoss(),
        config=config,
        output_dir=output,
        on_log=on_log,
        show_progress_bar=False,
    )


def weights(model: SentenceTransformer) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    ("numbers", "kind", "python"),
    [
        ([signal.SIGINT], TrainingInterrupted, KeyboardInterrupt),
        ([signal.SIGTERM], TrainingTerminated, SystemExit),
        ([signal.SIGTERM, signal.SIGTERM], TrainingTerminated, SystemExit),
    ],
)
@pytest.mark.parametrize("step", [3, 8])
def test_a_checkpoint_is_saved_after_the_step(
    step: int, numbers: list[int], kind: Any, python: Any, folder: Path, tmp_path: Path
) -> None:
    whole = trainer(folder, tmp_path / "whole")
    whole.train()
    with pytest.raises(kind, match=f"stopped after step {step} of 8; .*checkpoint-{step} holds all") as stopped:
        trainer(folder, tmp_path / "run", on_log=sent_at(step, *numbers)).train()
    assert isinstance(stopped.value, python)
    assert not isinstance(stopped.value, Exception)  # or a loop over runs would go on with the next
    assert stopped.value.checkpoint == tmp_path / "run" / f"checkpoint-{step}"
    if python is SystemExit:
        assert stopped.value.code == 143
    again = trainer(folder, tmp_path / "run")
    again.train(resume=True)
    assert torch.equal(weights(again.model), weights(whole.model))
    assert log(tmp_path / "run") == log(tmp_path / "whole")


def test_the_same_trainer_goes_on_with_its_model(folder: Path, tmp_path: Path) -> None:
    whole = trainer(folder, None)
    whole.train()
    made = trainer(folder, tmp_path, on_log=sent_at(5, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        made.train()
    made.train(resume=True)
    assert torch.equal(weights(made.model), weights(whole.model))


def test_a_checkpoint_that_is_there_is_not_written_twice(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainingConfig(**{**vars(CONFIG), "save_every": 2})
    written: list[int] = []
    save = Checkpoint.save

    def count(*arguments: Any, step: int, **options: Any) -> Checkpoint:
        written.append(step)
        return save(*arguments, step=step, **options)

    made = trainer(folder, tmp_path, config=config, on_log=sent_at(4, signal.SIGTERM))
    monkeypatch.setattr(Checkpoint, "save", count)
    with pytest.raises(TrainingTerminated):
        made.train()
    assert written == [2, 4]


def test_nothing_is_saved_without_a_place(folder: Path) -> None:
    with pytest.raises(TrainingInterrupted, match="stopped after step 2 of 8; nothing is saved") as stopped:
        trainer(folder, None, on_log=sent_at(2, signal.SIGINT)).train()
    assert stopped.value.checkpoint is None


@pytest.mark.parametrize("first", SIGNALS)
def test_a_second_ctrl_c_stops_at_once(first: int, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as stopped:
        trainer(folder, tmp_path, on_log=sent_at(3, first, signal.SIGINT)).train()
    assert not isinstance(stopped.value, TrainingInterrupted)
    assert not Checkpoint.all_in(tmp_path)


@pytest.mark.parametrize("number", SIGNALS)
def test_handlers_of_others_stay(number: signal.Signals, folder: Path, tmp_path: Path) -> None:
    received: list[int] = []
    python = signal.signal(number, lambda number, frame: received.append(number))
    try:
        history = trainer(folder, tmp_path, on_log=sent_at(3, number)).train()
    finally:
        signal.signal(number, python)
    assert (history.steps, received) == (8, [number])


def test_other_threads_leave_signals_alone(folder: Path) -> None:
    seen: list[object] = []
    made = trainer(folder, None, on_log=lambda entry: seen.append(signal.getsignal(signal.SIGINT)))
    thread = threading.Thread(target=made.train)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler] * 8


def test_a_request_that_came_too_late_is_not_lost() -> None:
    with pytest.raises(KeyboardInterrupt), StopSignal():
        signal.raise_signal(signal.SIGINT)

    def fail() -> None:
        with StopSignal():
            signal.raise_signal(signal.SIGINT)
            raise InputError("something else")

    with pytest.raises(InputError):
        fail()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_commands_say_how_to_go_on(
    number: int,
    status: int,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    columns = pairs()
    rows = zip(columns["a"], columns["b"], columns["label"], strict=True)
    (tmp_path / "pairs.tsv").write_text("a\tb\tlabel\n" + "".join(f"{a}\t{b}\t{label}\n" for a, b, label in rows))
    command = ["train", "--model", str(folder), "--data", str(tmp_path / "pairs.tsv"), "--loss", "cosine"]
    command += ["--epochs", "2", "--batch-size", "6", "--log-every", "1", "--device", "cpu"]
    assert main([*command, "--output", str(tmp_path / "whole")]) == 0
    write = TrainingLog.write

    def send(self: TrainingLog, entry: dict[str, float]) -> None:
        write(self, entry)
        sent_at(3, number)(entry)

    output = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "write", send)
        capsys.readouterr()
        assert main([*command, "--output", str(output), "--resume"]) == status
    start, stop = capsys.readouterr().err.splitlines()
    assert start.startswith(f"starting from the first step, as there is no checkpoint in {output}: ")
    assert stop == (
        f"minisbert: stopped after step 3 of 8; {output / 'checkpoint-3'} holds all that is needed to go on: "
        f"run the same command with --resume"
    )
    assert not (output / "modules.json").exists()
    assert main([*command, "--output", str(output), "--resume"]) == 0
    assert (output / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
