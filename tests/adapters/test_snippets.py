"""The snippets of docs/integrations.md run, and its table has the versions that are tried."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
from places import ROOT

pytestmark = pytest.mark.filterwarnings("ignore")
PAGE = ROOT / "docs" / "integrations.md"
TEXT = PAGE.read_text(encoding="utf-8")
ROWS = re.findall(r"^\| \[([\w-]+)\]\(#\S+\) \| (\S+) (\S+) \| `(\w+)` \| (.*) \|$", TEXT, re.M)
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S))
NEEDS = {"langchain": "langchain_core", "llama_index": "llama_index.core", "chroma": "chromadb"}


@pytest.mark.downstream
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[3])
def test_snippets(row: tuple[str, ...], minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    title, _, _, adapter, names = row
    pytest.importorskip(NEEDS.get(adapter, adapter))
    module = importlib.import_module(f"minisbert.adapters.{adapter}")
    for name in re.findall(r"`(\w+)`", names):
        assert getattr(module, name).__module__ == module.__name__
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    snippets = re.findall(r"^```python\n(.*?)^```$", SECTIONS[title], re.M | re.S)
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, f"{PAGE}: {title}", "exec"), found)


def test_versions_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "downstream"))
    environments = importlib.import_module("environments")
    monkeypatch.delitem(sys.modules, "environments")  # others have a module of this name
    assert sorted(f"{package}=={version}" for _, package, version, _, _ in ROWS) == sorted(environments.ADAPTERS)


def test_every_adapter_is_in_the_table() -> None:
    files = (ROOT / "minisbert" / "adapters").glob("[a-z]*.py")
    assert sorted(row[3] for row in ROWS) == sorted(path.stem for path in files)
