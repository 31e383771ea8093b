"""Replay repeats the reference's training bit for bit: every loss of every batch, and the file of the final weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from replay_cases import CACHED, CASES, RATES, VERSIONS, our_run, their_runs
from safetensors.torch import load_file

from minisbert.training.config import ReplayVersion

pytestmark = [
    pytest.mark.parity,
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore"),
]
ALL = {**CASES, **RATES, **CACHED}
RUNS = [(name, version) for version in VERSIONS for name, case in ALL.items() if version in case.versions]
Runs: TypeAlias = dict[str, tuple[list[float], Path]]


@pytest.fixture(scope="module")
def reference_runs(
    model_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Runs]:
    """What a version of the reference makes of all cases."""
    done: dict[str, Runs] = {}

    def runs(version: str) -> Runs:
        if version not in done:
            chosen = {name: ALL[name] for name, replayed in RUNS if VERSIONS[replayed] == version}
            done[version] = their_runs(version, tmp_path_factory.mktemp(version), model_folder, chosen)
        return done[version]

    return runs


@pytest.mark.parametrize(("name", "replayed"), RUNS)
def test_replay_is_bitwise_the_reference(
    name: str,
    replayed: ReplayVersion,
    reference_runs: Callable[[str], Runs],
    model_folder: Callable[[str], Path],
    tmp_path: Path,
    compare: Callable[..., None],
) -> None:
    version = VERSIONS[replayed]
    expected, folder = reference_runs(version)[name]
    got, model = our_run(ALL[name], model_folder(ALL[name].architecture), replayed)
    assert len(got) == len(expected) > 1
    row = f"replay of {version}: {'fit' if ALL[name].fit else 'Trainer'}"
    compare(f"{row}, losses of every batch", np.abs(np.subtract(got, expected)).max(), 0, cases=len(got))
    model.save_pretrained(tmp_path / "ours")
    ours, theirs = (load_file(place / "model.safetensors") for place in (tmp_path / "ours", folder))
    assert ours.keys() == theirs.keys()
    largest = max(float((ours[key] - theirs[key]).abs().max()) for key in ours)
    compare(f"{row}, final weights", largest, 0)
    assert (tmp_path / "ours" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
