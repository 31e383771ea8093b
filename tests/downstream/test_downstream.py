"""Packages written for sentence-transformers work with minisbert in its place, and embed as its models do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT

from minisbert import SentenceTransformer

sys.path.insert(0, str(Path(__file__).parent))

from packages import PACKAGES, TEXTS

pytestmark = pytest.mark.downstream


@pytest.fixture(scope="module")
def python() -> Path:
    """The Python of the environment that holds the packages."""
    folder = os.environ.get("MINISBERT_DOWNSTREAM")
    if not folder:
        pytest.skip("MINISBERT_DOWNSTREAM names no environment: python tests/downstream/environments.py FOLDER")
    return Path(folder) / "bin" / "python"


def used(python: Path, name: str, model: Path) -> dict[str, Any]:
    """The result of a package."""
    script = ROOT / "tests" / "downstream" / "packages.py"
    offline = {"HF_HUB_OFFLINE": "1", "ANONYMIZED_TELEMETRY": "False", "HAYSTACK_TELEMETRY_ENABLED": "False"}
    done = subprocess.run(
        [python, script, name, model],
        capture_output=True,
        text=True,
        env={**os.environ, **offline},
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_embeds_with_minisbert(name: str, python: Path, tiny: Callable[[str], Path]) -> None:
    folder = tiny("bert")
    result = used(python, name, folder)
    assert result["home"].startswith("minisbert.")
    expected = SentenceTransformer(folder, device="cpu").encode(list(TEXTS))
    if name == "txtai":  # it normalizes
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    if "documents" in result:
        np.testing.assert_allclose(np.array(result["documents"]), expected, atol=1e-6)
    if "query" in result:
        np.testing.assert_allclose(np.array(result["query"]), expected[0], atol=1e-6)
    assert np.ravel(result.get("nearest", 1)).astype(int) == [1]
    if name == "keybert":
        assert set(result["words"]) <= set(TEXTS[0].split())
        assert result["embedder"] == "SentenceTransformerBackend"
    assert set(result.get("predicted", ())) <= {0, 1}
