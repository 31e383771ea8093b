"""Training scripts in the reference's own idiom, of its versions 2 to 6, run unchanged with minisbert."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import script_runs
from tiny_models import without_dropout

pytest.importorskip("datasets")
pytest.importorskip("transformers")


def test_scripts_run(tmp_path: Path) -> None:
    folder = without_dropout(tmp_path / "bert")
    run = subprocess.run(
        [sys.executable, script_runs.__file__, "minisbert", str(folder)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert [one["script"] for one in found] == script_runs.NAMES
    for one in found:
        assert all(map(math.isfinite, one["numbers"])), one
        assert len(set(one["numbers"])) > 1, one
    assert [entry.name for entry in tmp_path.iterdir()] == ["bert"]
