"""Training scripts in the reference's idiom print the same losses with minisbert as with the reference.

The model has no dropout, as packed training draws other masks. Sums are taken in another order, so that losses differ
in their last digits: by 1e-5 of their size or 2e-6, and by no more after several steps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import script_runs
from tiny_models import without_dropout

pytest.importorskip("sentence_transformers")
pytestmark = [pytest.mark.parity, pytest.mark.long, pytest.mark.filterwarnings("ignore")]
RELATIVE, ABSOLUTE = 1e-5, 2e-6


def numbers(library: str, folder: Path, place: Path) -> dict[str, list[float]]:
    """What each script prints with a library."""
    run = subprocess.run(
        [sys.executable, script_runs.__file__, library, str(folder)],
        capture_output=True,
        text=True,
        cwd=place,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert run.returncode == 0, run.stderr[-500:]
    return {one["script"]: one["numbers"] for one in map(json.loads, run.stdout.splitlines())}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    place = tmp_path_factory.mktemp("scripts")
    folder = without_dropout(place / "bert")
    return numbers("minisbert", folder, place), numbers("reference", folder, place)


@pytest.mark.parametrize("script", script_runs.NAMES)
def test_scripts_print_the_same(both: tuple[dict[str, list[float]], dict[str, list[float]]], script: str) -> None:
    ours, theirs = (one[script] for one in both)
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=RELATIVE, atol=ABSOLUTE)
