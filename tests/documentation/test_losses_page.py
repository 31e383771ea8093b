"""The page that helps to choose a loss: it has them all, each with rows that run, and figures as measured."""

from __future__ import annotations

import json
import re

import pytest
from places import ROOT

from minisbert.losses import loss_names

PAGE = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
SNIPPETS = "".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
TABLE = [line for line in PAGE.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("name", loss_names())
def test_every_loss_is_in_the_table_and_runs(name: str) -> None:
    assert f"`{name}`" in "".join(TABLE)
    assert f"losses.{name}(" in SNIPPETS  # tests/project/test_docs.py executes these


def test_the_table_names_losses_alone() -> None:
    assert set(re.findall(r"`(\w+)`", "".join(TABLE))) == set(loss_names())


def test_figures_are_those_of_the_results() -> None:
    batch = json.loads((ROOT / "benchmarks/results/cached.json").read_text(encoding="utf-8"))["batches"]["1024"]
    plain, cached = batch["minisbert, plain"], batch["minisbert, cached"]
    slower = cached["seconds"]["median"] / plain["seconds"]["median"]
    text = " ".join(PAGE.split())
    assert f"{cached['peak'] / 1000:.1f} GB instead of {plain['peak'] / 1000:.1f} GB" in text
    assert f"took {slower:.1f} times as long" in text


def test_the_comparison_is_that_of_the_tutorial() -> None:
    tutorial = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    evaluated = tutorial[tutorial.index("## Evaluate") :]
    shown = re.findall(r"^spearman_cosine +(\d\.\d\d)$", evaluated, re.MULTILINE)
    text = " ".join(PAGE.split())
    found = re.search(
        r"held-out answers is ([\d.]+) before; ([\d.]+) after .*? alone, ([\d.]+) with .*? ([\d.]+) after", text
    )
    assert found
    assert list(found.groups()) == shown  # of the base, of pairs, of negatives, of grades
