"""Evaluators on real data, with real weights: what the reference finds, and what was published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from places import DATA

from minisbert.cli import main

pytestmark = [pytest.mark.data, pytest.mark.filterwarnings("ignore::minisbert.errors.TruncationWarning")]


@pytest.mark.parametrize(
    ("arguments", "metrics"),
    [
        ("--retrieval xquad_en --no-titles", {"cosine_ndcg@10": 0.94357, "cosine_recall@10": 0.98987}),
        ("--binary mqp/mqp.tsv.gz", {"cosine_ap": 0.8931}),
    ],
)
def test_untouched_model_scores_what_it_should(
    arguments: str, metrics: dict[str, float], minilm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, place, *options = arguments.split()
    assert main(["evaluate", str(minilm), kind, str(DATA / place), *options, "--device", "cpu", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {name: printed[name] for name in metrics} == pytest.approx(metrics, rel=0, abs=6e-5)
