"""The Triton kernels under Triton's interpreter: every test_triton_<operation>.py in one process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from places import ROOT

pytest.importorskip("triton")

pytestmark = pytest.mark.compile  # as long as a fifth of the plain suite


def test_numbers_under_the_interpreter() -> None:
    files = sorted(path for path in ROOT.glob("tests/kernels/test_triton_*.py") if path.stem != "test_triton_compiles")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, files)],
        cwd=ROOT,
        env={**environment, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    assert "passed" in run.stdout
