"""The list of names in docs/names.md, and how two signatures are compared."""

from __future__ import annotations

import enum
import importlib
import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from places import ROOT

from minisbert.errors import ConfigError, MinisbertError

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


class Colour(enum.Enum):
    RED = "red"


class Thing:
    def __init__(self, a: int, b: object = len, *, c: Colour = Colour.RED) -> None:
        self.a = a

    def method(self, x: tuple[int, ...] = (1, 2)) -> None:
        pass

    @classmethod
    def made(cls, x: int = 1) -> Thing:
        return cls(x)

    @property
    def fixed(self) -> int:
        return 1

    @property
    def free(self) -> int:
        return 1

    @free.setter
    def free(self, value: int) -> None:
        pass


def test_what_is_listed_of_a_class(load: Callable[[str], ModuleType]) -> None:
    dump = load("names_dump")
    plain = "POSITIONAL_OR_KEYWORD"
    assert dump.described(Thing) == {
        "kind": "class",
        "parameters": [["a", plain, ""], ["b", plain, "len"], ["c", "KEYWORD_ONLY", "Colour.RED"]],
    }
    assert dump.own_members(Thing) == ["method", "made", "fixed", "free"]
    assert dump.member_of(Thing, "method") == {"kind": "method", "parameters": [["x", plain, "tuple(1, 2)"]]}
    assert dump.member_of(Thing, "made") == {"kind": "method", "parameters": [["x", plain, "1"]]}
    assert [dump.member_of(Thing, name)["value"] for name in ("fixed", "free")] == ["cannot be set", "can be set"]
    assert dump.described(Colour) == {"kind": "class", "value": {"RED": "'red'"}}
    code = MinisbertError.__init__.__code__
    assert dump.code_of(ConfigError) == [code.co_filename, code.co_firstlineno]
    assert dump.code_of(Colour) is None


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        ([["a", "KEYWORD_ONLY", ""], ["b", "KEYWORD_ONLY", "1"]], ""),
        ([["b", "KEYWORD_ONLY", "1"], ["a", "KEYWORD_ONLY", ""]], "another order"),
        ([["a", "KEYWORD_ONLY", ""]], "without `b`"),
        ([["a", "KEYWORD_ONLY", ""], ["b", "KEYWORD_ONLY", "2"]], "`b=2`, not `1`"),
        ([["a", "KEYWORD_ONLY", ""], ["b", "VAR_KEYWORD", "1"]], "`b` is var keyword"),
        ([["a", "KEYWORD_ONLY", ""], ["b", "KEYWORD_ONLY", "1"], ["c", "KEYWORD_ONLY", ""]], "also `c`"),
    ],
)
def test_how_parameters_differ(ours: list[list[str]], said: str, load: Callable[[str], ModuleType]) -> None:
    theirs = [["a", "KEYWORD_ONLY", ""], ["b", "KEYWORD_ONLY", "1"]]
    found = load("names").difference({"kind": "class", "parameters": theirs}, {"kind": "class", "parameters": ours})
    assert found == said


def test_how_kinds_and_values_differ(load: Callable[[str], ModuleType]) -> None:
    difference = load("names").difference
    assert difference({"kind": "property"}, {"kind": "method"}) == "a method, not a property"
    one, other = ({"kind": "class", "value": value} for value in ({"A": 1, "B": 2}, {"B": 3, "C": 4}))
    assert difference(one, other) == "without `A`, also `C`, `B` is 3"


def test_the_page(load: Callable[[str], ModuleType]) -> None:
    names: dict[str, dict[str, Any]] = {
        "Thing": {"module": "", "kind": "class", "state": "same", "used": True},
        "Thing.method": {"module": "", "kind": "method", "state": "same", "used": True},
        "Other": {"module": "", "kind": "class", "state": "same", "used": False, "why": "too large"},
        "Other.method": {"module": "", "kind": "method", "state": "different", "how": "without `x`", "why": "a | b"},
        "gone": {"module": "util", "kind": "function", "state": "missing", "why": "no need"},
    }
    page = load("names_page").render({"version": "6.2.0", "names": names})
    assert "Of 5 names 2 are the same, 1 are the same but used by no test, 1 are different and 1 are missing." in page
    assert "| `Thing` with `.method` | same |  |\n" in page
    assert "| `Other` | unused | too large |\n| `.method` | **different** | without `x`; a \\| b |\n" in page
    assert "## sentence_transformers.util\n\n| name | | |\n|---|---|---|\n| `gone` | **missing** | no need |\n" in page


def test_reasons_are_given_and_needed(load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    script = load("names")
    monkeypatch.setattr(script, "REASONS", {"missing": {"Gone*": "no need"}, "different": {"stale": "x"}})
    monkeypatch.setattr(script, "UNUSED", {})
    names: dict[str, dict[str, Any]] = {
        "Gone.method": {"state": "missing"},
        "other": {"state": "different", "how": "without `x`"},
        "strict": {"state": "different", "how": "without `args`, without `kwargs`"},
        "idle": {"state": "same", "used": False},
        "well": {"state": "same", "used": True},
    }
    problems = script.explain(names)
    assert names["Gone.method"]["why"] == "no need"
    assert "misspelt" in names["strict"]["why"]
    assert problems == ["different: other: without `x`", "unused: idle", "a reason for nothing different: stale"]


def test_the_page_is_the_result(load: Callable[[str], ModuleType]) -> None:
    result = json.loads((BENCHMARKS / "results" / "names.json").read_text(encoding="utf-8"))
    assert (ROOT / "docs" / "names.md").read_text(encoding="utf-8") == load("names_page").render(result)
