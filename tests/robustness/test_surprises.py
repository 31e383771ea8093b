"""What the library does besides what it is asked for: nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from places import HELPERS, ROOT


class Used(NamedTuple):
    """What `every_use.py` found, and where it was."""

    found: dict[str, Any]
    output: Path
    elsewhere: list[Path]


@pytest.fixture(scope="module")
def used(tiny: Callable[[str], Path], minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Used:
    root = tmp_path_factory.mktemp("use")
    output, *elsewhere = (root / name for name in ("output", "home", "temporary", "current"))
    for folder in (output, *elsewhere):
        folder.mkdir()
    ours = ("HF_", "XDG_", "TORCHINDUCTOR_", "TRITON_", "MPLCONFIG")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    places = {"HOME": str(elsewhere[0]), "TMPDIR": str(elsewhere[1]), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-W", "error", HELPERS / "every_use.py", tiny("bert"), output],
        capture_output=True, text=True, check=False, cwd=elsewhere[2], env={**environment, **places},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Used(json.loads(done.stdout), output, elsewhere)


def test_nothing_global_is_changed(used: Used) -> None:
    changed = used.found["changed"]
    (seeded,) = changed.pop("a seed")
    assert seeded.startswith("random numbers of torch: ")
    assert len(changed) == 18
    assert {name: changes for name, changes in changed.items() if changes} == {}


def test_no_socket_is_opened(used: Used) -> None:
    assert used.found["sockets"] == ["socket.getaddrinfo"]  # the one that the script asks for at its end


def test_nothing_is_written_elsewhere(used: Used) -> None:
    assert [file for folder in used.elsewhere for file in folder.rglob("*") if file.is_file()] == []
    written = [Path(file) for file in used.found["written"]]
    assert used.output / "out.npy" in written
    assert [file for file in written if used.output not in file.parents] == []
