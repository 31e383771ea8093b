"""The recipes of docs/stores.md find what `semantic_search` finds, and stores do what the page says of them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from places import ROOT

STORES = re.findall("^## (.*)$", (ROOT / "docs" / "stores.md").read_text(encoding="utf-8"), flags=re.MULTILINE)


@pytest.mark.engines
@pytest.mark.parametrize("name", STORES)
def test_a_store_finds_what_search_finds(name: str, tmp_path: Path) -> None:
    folder = os.environ.get("MINISBERT_STORES")
    if not folder:
        pytest.skip("MINISBERT_STORES names no environment: python tests/engines/store_environment.py FOLDER")
    script = ROOT / "tests" / "engines" / "stores.py"
    done = subprocess.run(
        [Path(folder) / "bin" / "python", script, name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        check=False,
        timeout=600,
    )
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr[-3000:]
