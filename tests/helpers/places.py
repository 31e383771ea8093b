"""Paths of the repository and of the real data sets beside it; the version of transformers."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
TRANSFORMERS = int(version("transformers").split(".")[0])
HELPERS = Path(__file__).resolve().parent
