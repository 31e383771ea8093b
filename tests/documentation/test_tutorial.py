"""The tutorial: a run of all its commands prints what the page shows."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import tutorial

LARGEST_PICTURE = 60_000  # bytes


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_page_is_as_it_was_run(minilm: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("onnxruntime")
    page = tutorial.PAGE.read_text(encoding="utf-8")
    differences = tutorial.differences(page, tutorial.render(tmp_path), tolerance=tutorial.tolerance())
    assert list(differences) == []
    assert all(picture.is_file() for picture in tutorial.pictures(tmp_path))


def test_pictures_are_there_and_small() -> None:
    shown = re.findall(r"\]\((tutorial/[\w.]+)\)", tutorial.PAGE.read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(f"tutorial/{one.name}" for one in tutorial.PICTURES.iterdir())
    assert all(one.stat().st_size < LARGEST_PICTURE for one in tutorial.PICTURES.iterdir())


def test_figures_of_the_prose_are_of_commands_and_their_output() -> None:
    page = tutorial.PAGE.read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"^```\w+\n.*?^```$", page, re.MULTILINE | re.DOTALL))
    prose = re.sub(r"^```\w+\n.*?^```$|`[^`]+`", "", page, flags=re.MULTILINE | re.DOTALL)
    assert [number for number in re.findall(r"\d[\d.,]*\d", prose) if number not in blocks] == []


def test_every_block_is_executed_or_printed() -> None:
    page = tutorial.PAGE.read_text(encoding="utf-8")
    fences = re.findall(r"^```(\w+)$", page, re.MULTILINE)
    executed = [block["language"] for block in tutorial.BLOCK.finditer(page)]
    outputs = [block for block in tutorial.BLOCK.finditer(page) if block["output"] is not None]
    assert set(executed) == {"bash", "python"}
    assert len(fences) == len(executed) + len(outputs)
    assert all(block["output"] for block in outputs)


@pytest.mark.parametrize(
    ("line", "other", "same"),
    [
        ("spearman_cosine    0.61", "spearman_cosine    0.62", True),
        ("spearman_cosine    0.61", "spearman_cosine    0.63", False),
        ("change   +0.00", "change   -0.01", True),
        ("difference is 3.4e-07, and", "difference is 6e-07, and", True),
        ("difference is 3.4e-07, and", "difference is 3.4e-04, and", False),
        ("97 rows", "98 rows", False),
        ("0.75 Why", "0.75 How", False),
        ("0.75 0.10", "0.75", False),
    ],
)
def test_what_counts_as_rounding(line: str, other: str, same: bool) -> None:
    assert bool(list(tutorial.differences(line, other))) is not same


def test_numbers_are_shown_with_two_decimals_in_their_columns() -> None:
    output = "metric    value\nsim    0.6076\nloss 0.0310, or 20.0\ntime   13.9 seconds\nfile-1.25.33 +0.0044\n"
    assert tutorial.shown(output) == "metric    value\nsim      0.61\nloss 0.03, or 20.0\nfile-1.25.33 +0.00\n"
