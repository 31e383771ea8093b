"""Several processes of one run, started by torchrun: they embed and evaluate together, go on, and end together."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models
from launch import Launched, kill, launch
from places import HELPERS

pytestmark = pytest.mark.ranks

RUNS = HELPERS / "rank_runs.py"


@pytest.fixture
def folder(tmp_path: Path, tiny: Callable[[str], Path]) -> Path:
    tiny_models.without_dropout(tmp_path / "model")
    (tmp_path / "dropping").symlink_to(tiny("bert"))
    return tmp_path


def test_texts_are_embedded_and_models_evaluated_together(folder: Path) -> None:
    launch(RUNS, folder, "encode", "evaluate").check()


def test_a_run_goes_on_in_as_many_processes_and_in_others(folder: Path) -> None:
    launch(RUNS, folder, "resume").check()


def test_runs_of_compat_count_epochs_and_call_callbacks_in_all(folder: Path) -> None:
    launch(RUNS, folder, "compat").check()


def test_all_processes_end_together(folder: Path) -> None:
    ended = launch(RUNS, folder, "ends")
    assert "rank 0 was told" in ended.output, ended.output
    assert "exitcode  : 1" in ended.output  # of rank 1


def test_a_run_goes_on_when_torchrun_starts_it_again(folder: Path) -> None:
    ended = launch(RUNS, folder, "dies", restarts=1, environment={"LOOK": "0.2"}).check()
    told = "rank 0: got no answer from rank 1 (it was killed, is stopped, or its machine is gone)"
    assert told in ended.output or "closing signal SIGTERM" in ended.output  # rank 0 looks, and so does torchrun
    assert ended.output.count("ends as if nothing had been") == 2


def test_a_process_that_is_stopped_ends_the_others(folder: Path) -> None:
    launched = Launched([RUNS, folder, "dies"], environment={"HOW": "SIGSTOP", "LOOK": "0.2"})
    start = time.monotonic()
    line = launched.wait_for("got no answer from rank 1 (it was killed, is stopped, or its machine is gone)")
    assert line.startswith("minisbert: error: ")
    assert time.monotonic() - start < 30
    kill(launched.ranks()[-1])
    assert launched.end().status == 1
