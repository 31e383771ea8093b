"""Habits of the reference's users run with minisbert.compat alone; the parity tests compare what they return."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import idiom_runs
import idiom_tables
import pytest
from tiny_models import without_dropout

pytest.importorskip("datasets")
pytest.importorskip("transformers")


def test_none_fails_but_those_that_should(tmp_path: Path) -> None:
    folder = without_dropout(tmp_path / "bert")
    run = subprocess.run(
        [sys.executable, idiom_runs.__file__, "minisbert", str(folder), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = {one["name"]: one["found"] for one in map(json.loads, run.stdout.splitlines())}
    raised = {name: one["raised"] for name, one in found.items() if isinstance(one, dict) and "raised" in one}
    packages = idiom_tables.WITH_PACKAGES
    expected = {**idiom_tables.RAISED, **idiom_tables.REFUSED}
    assert {name: kind for name, kind in raised.items() if name not in packages} == {
        name: kind for name, kind in expected.items() if name not in packages
    }, {name: found[name] for name in raised if name not in expected}
    assert {*idiom_tables.FREER, *idiom_tables.DIFFERENT, *expected, *packages} <= {*found}
