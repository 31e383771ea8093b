"""Rows to train on, and the log of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from common import WORDS


def pairs(count: int = 24) -> dict[str, Any]:
    draw = np.random.default_rng(3)
    first, second = ([" ".join(draw.choice(WORDS, draw.integers(1, 9))) for _ in range(count)] for _ in range(2))
    return {"a": first, "b": second, "label": draw.random(count).tolist()}


def log(output: Path) -> list[dict[str, float]]:
    """Its entries, without what a clock says."""
    entries = [json.loads(line) for line in (output / "train_log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in entry.items() if name != "tokens_per_second"} for entry in entries]
