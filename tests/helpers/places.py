"""Paths of the repository and of the real data sets beside it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
HELPERS = Path(__file__).resolve().parent
