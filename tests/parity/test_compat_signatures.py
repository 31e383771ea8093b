"""Every name of sentence-transformers has the same signature in minisbert.compat, or a reason why not."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from places import ROOT

from minisbert.compat import paths

pytest.importorskip("sentence_transformers.base")  # from 6.0 on
pytestmark = pytest.mark.parity


def test_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    names, _ = (script := importlib.import_module("names")).compared()
    for one in names.values():
        one["used"] = True
    problems = [line for line in script.explain(names) if not line.startswith("a reason for nothing unused")]
    assert not problems, "\n".join(problems)


def test_every_module_has_its_path_and_offers_its_list() -> None:
    root = importlib.import_module("sentence_transformers")
    found = [one.name for one in pkgutil.walk_packages(root.__path__, f"{root.__name__}.")]
    assert len(found) > 150
    for name in [root.__name__, *found]:
        path = name.partition(".")[2]
        assert path in paths.NAMES
        assert set(getattr(importlib.import_module(name), "__all__", ())) <= {*paths.NAMES[path], *paths.also(path)}
