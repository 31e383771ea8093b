"""Every snippet of the README runs, and its numbers are those of the results."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
from places import ROOT

from minisbert.cli import main

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


def test_every_block_is_of_a_kind_that_is_run() -> None:
    assert {name for name, _ in BLOCKS} == {"python", "bash", "tsv", "text"}
    set_up = [line for line in "".join(blocks("bash")).splitlines() if line.startswith("python3 -m venv ")]
    assert len(set_up) == 2  # .ci/run runs these two word for word


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_python_snippets(minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), names)
    assert (tmp_path / "my-model" / "modules.json").is_file()


def test_commands(minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.tsv").write_text(blocks("tsv")[0])
    commands = [line for line in "".join(blocks("bash")).splitlines() if line.startswith("minisbert ")]
    assert len(commands) == 6
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0, command
    assert (tmp_path / "answers.npy").is_file()


def test_the_tree_names_what_is_there() -> None:
    tree = blocks("text")[0]
    listed = set(re.findall(r"^    (\S+)", tree, flags=re.MULTILINE))
    folders = [*(ROOT / "minisbert").iterdir(), *(ROOT / "kernels").iterdir()]
    there = {path.name + ("/" if path.is_dir() else "") for path in folders}
    hidden = {"__init__.py", "__main__.py", "__pycache__/", "py.typed"}
    assert listed == there - hidden


def test_measured_numbers_are_those_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    report = importlib.import_module("report")
    assert report.render() in README
    picture = (ROOT / "benchmarks" / "results" / "encode.svg").read_text(encoding="utf-8")
    for one in report._read("encode")["classes"].values():
        for contender in one["contenders"].values():
            assert f"<!-- {contender['texts_per_second']:,.0f} -->" in picture  # the text of what is drawn as outlines
