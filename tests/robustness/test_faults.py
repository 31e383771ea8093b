"""The short form of tests/robustness/faults.py: a few of the faults that it makes many of."""

from __future__ import annotations

import importlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from places import ROOT

from minisbert.cli import main

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX systems")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "robustness"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return importlib.import_module


def test_a_run_that_is_killed_twice_ends_as_if_it_had_not_been(
    load: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    jobs, kill = load("trials.job"), load("trials.kill")
    job = jobs.Job(tmp_path, steps=40)
    found = kill.until_it_ends(job, tmp_path / "killed", kills=2, draw=random.Random(5), longest_life=0.3)
    assert found.fault == ""
    assert main(job.arguments(tmp_path / "whole")) == 0
    assert jobs.weights(tmp_path / "killed") == jobs.weights(tmp_path / "whole")
    assert found.kills  # two, unless it is too fast
    assert jobs.logged_step(tmp_path / "killed") == 40
    assert not [path for path in (tmp_path / "killed").iterdir() if path.name.startswith(".")]


def test_a_limit_for_files_is_told_in_one_line(load: Callable[[str], ModuleType], tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    jobs, disk = load("trials.job"), load("trials.disk")
    job = jobs.Job(tmp_path, steps=10)
    output = tmp_path / "limited"
    ended = job.finish(output, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)))
    assert disk._refusal(ended) == ""  # of the weights
    for place in (output, tmp_path / "whole"):
        assert main(job.arguments(place)) == 0
    assert jobs.weights(output) == jobs.weights(tmp_path / "whole")


def test_every_part_can_be_run(load: Callable[[str], ModuleType]) -> None:
    for part in load("faults").PARTS:
        assert callable(load(f"trials.{part}").run)
