"""Habits of the reference's users return the same with minisbert.compat as with the reference.

Numbers are equal to 2e-5 of their size or absolutely, and to 2e-3 in half precision; types, shapes, dtypes, names and
texts are equal. `idiom_tables` names those that differ, and why.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from typing import Any

import idiom_runs
import idiom_tables
import pytest
from tiny_models import without_dropout

pytest.importorskip("sentence_transformers")
pytestmark = [pytest.mark.parity, pytest.mark.long, pytest.mark.filterwarnings("ignore")]
EXACT, HALF = 2e-5, 2e-3
_NO_PACKAGE = ("ImportError", "ModuleNotFoundError")


def same(ours: Any, theirs: Any, bound: float = EXACT) -> bool:
    """True if two values, as `idiom_runs` describes them, are the same."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if "raised" in ours or "raised" in theirs:
            return "raised" in ours and "raised" in theirs
        within = HALF if "16" in str(ours.get("dtype")) else bound
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key], within) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(same(*pair, bound) for pair in zip(ours, theirs, strict=True))
    if isinstance(ours, float) and isinstance(theirs, float):
        both_nan = math.isnan(ours) and math.isnan(theirs)
        return both_nan or abs(ours - theirs) <= bound * max(1.0, abs(theirs))
    return type(ours) is type(theirs) and ours == theirs


def fails(found: Any) -> bool:
    """True if a habit raised an error."""
    return isinstance(found, dict) and "raised" in found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    place = tmp_path_factory.mktemp("idioms")
    folder = without_dropout(place / "bert")
    running = [
        subprocess.Popen(
            [sys.executable, idiom_runs.__file__, library, str(folder), str(place)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=place,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        for library in ("minisbert", "reference")
    ]
    ours, theirs = ([json.loads(line) for line in run.communicate()[0].splitlines()] for run in running)
    assert [run.returncode for run in running] == [0, 0]
    assert [one["name"] for one in ours] == [one["name"] for one in theirs]
    assert len({one["name"] for one in ours}) == len(ours) > 156
    return tuple({one["name"]: one["found"] for one in found} for found in (ours, theirs))  # type: ignore[return-value]


def test_all_others_are_the_same(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    ours, theirs = both
    set_apart = {*idiom_tables.FREER, *idiom_tables.DIFFERENT, *idiom_tables.REFUSED}
    lacking = {name for name in theirs if fails(theirs[name]) and theirs[name]["raised"] in _NO_PACKAGE}
    differ = {name for name in theirs if not same(ours[name], theirs[name])} - set_apart - lacking
    assert not differ, {name: (ours[name], theirs[name]) for name in differ}
    assert lacking <= {*idiom_tables.WITH_PACKAGES, *idiom_tables.WITH_PACKAGES_THERE, *idiom_tables.REFUSED}


@pytest.mark.parametrize("name", idiom_tables.FREER)
def test_only_the_reference_raises(both: tuple[dict[str, Any], dict[str, Any]], name: str) -> None:
    ours, theirs = both
    assert (fails(ours[name]), fails(theirs[name])) == (False, True)


@pytest.mark.parametrize("name", idiom_tables.DIFFERENT)
def test_those_that_differ_do(both: tuple[dict[str, Any], dict[str, Any]], name: str) -> None:
    ours, theirs = both
    assert not fails(ours[name])
    assert not fails(theirs[name])
    assert not same(ours[name], theirs[name])


@pytest.mark.parametrize("name", idiom_tables.REFUSED)
def test_what_minisbert_has_not_is_refused_by_name(both: tuple[dict[str, Any], dict[str, Any]], name: str) -> None:
    found = both[0][name]
    assert found["raised"] == "ConfigError"
    assert "which minisbert does not do" in found["said"] or "expected something that minisbert has" in found["said"]
