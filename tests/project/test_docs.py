"""Every snippet of the README and the documentation runs; links, names and figures are those of the repository."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from launch import Launched
from places import ROOT
from trackers import missing_modules

from minisbert import SentenceTransformer, compat
from minisbert.cli import main

DOCS, EXAMPLES = ROOT / "docs", ROOT / "examples"
# tests/engines and tests/adapters execute these, where what they need is installed; tests/documentation the tutorial
ELSEWHERE = [DOCS / f"{name}.md" for name in ("engines", "integrations", "runtimes", "stores", "tutorial")]
RUN = [
    ROOT / "README.md",
    *sorted({*DOCS.glob("*.md")} - {*ELSEWHERE}),
]  # pages whose snippets are executed
OTHERS = ("CONTRIBUTING.md", "benchmarks/README.md", "examples/README.md")
PAGES = [*RUN, *ELSEWHERE, *(ROOT / name for name in OTHERS)]
DATA_LANGUAGES = ("tsv", "jsonl", "md", "text")  # with a title: a file that the page's commands read
SET_UP = ("python3 -m venv ", "source ")  # .ci/run does this


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    title: str | None
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    content = page.read_text(encoding="utf-8")
    fences = re.finditer(r'^```(\w+)(?: title="(.*?)")?\n(.*?)^```$', content, flags=re.MULTILINE | re.DOTALL)
    found = [Block(one[1], one[2], one[3], content.count("\n", 0, one.start()) + 2) for one in fences]
    assert content.count("```") == 2 * len(found), f"{page} has a fence without a language"
    return found


def run(block: Block, page: Path, names: dict[str, object]) -> None:
    """Execute a block in the working directory; lines of tracebacks are those of the page."""
    if block.language == "python" and block.title is not None:
        Path(block.title).write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
    elif block.language == "bash":
        for command in block.text.replace("\\\n", "").splitlines():
            if not command.startswith(SET_UP):
                program, *arguments = shlex.split(command)
                if program == "torchrun":
                    continue  # test_commands_of_several_processes runs it
                if program == "python":
                    subprocess.run(
                        [sys.executable, *arguments], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
                    )
                    continue
                if program == "seq":  # numbers for xargs, which starts the command
                    run_in_shell(command)
                    continue
                assert program == "minisbert", f"{page}: {command} is run by no test"
                assert main(arguments) == 0, command
    elif block.title is not None:
        assert block.language in DATA_LANGUAGES
        Path(block.title).parent.mkdir(exist_ok=True)
        Path(block.title).write_text(block.text, encoding="utf-8")
    else:
        assert block.language == "text", f"{page}: {block.language} is run by no test"


def run_in_shell(command: str) -> None:
    """Run a line with pipes, in which `minisbert` is this one."""
    if not shutil.which("xargs"):
        return
    programs = Path("programs")
    programs.mkdir(exist_ok=True)
    (programs / "minisbert").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m minisbert "$@"\n')
    (programs / "minisbert").chmod(0o755)
    path = f"{programs.resolve()}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, shell=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_snippets(
    page: Path, minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    module = ModuleType("__main__")  # where classes of snippets live, for processes that are started
    monkeypatch.setitem(sys.modules, "__main__", module)
    stand_ins = missing_modules() if page.stem == "trackers" else {}  # where the real packages are not installed
    for name, (stand_in, _) in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, stand_in)
    if page.stem == "evaluating":  # reads NanoBEIR through this package
        monkeypatch.setattr(pytest.importorskip("datasets").config, "HF_DATASETS_CACHE", tmp_path / "cache")
    if page.stem == "publishing":  # to a Hub on the loopback
        request.getfixturevalue("hub")
        monkeypatch.setenv("HF_TOKEN", "hf_me")
    for name in [name for name in sys.modules if name.partition(".")[0] == "sentence_transformers"]:
        monkeypatch.delitem(sys.modules, name)  # the reference, of other tests
    try:
        for block in blocks(page):
            run(block, page, module.__dict__)
    finally:
        compat.uninstall()
    for name, (_, tracked) in stand_ins.items():
        assert {(key, 4) for key in ("loss", "learning_rate", "eval_loss", "epoch")} <= tracked.values.keys(), name


@pytest.mark.ranks
def test_commands_of_several_processes(minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = DOCS / "training.md"
    files = [block for block in blocks(page) if block.title is not None]
    commands = [line for block in blocks(page) for line in block.text.replace("\\\n", "").splitlines()]
    started = [shlex.split(line)[3:] for line in commands if line.startswith("torchrun --nproc-per-node 2 ")]
    assert len(started) == 2
    for block in files:
        run(block, page, {})
    for arguments in started:
        Launched(arguments).end().check()
    assert len(list(tmp_path.glob("my-*/model.safetensors"))) == 2


def test_set_up_commands_are_those_that_ci_runs() -> None:
    commands = [block.text for block in blocks(ROOT / "README.md") if block.language == "bash"]
    assert sum(line.startswith("python3 -m venv ") for line in "".join(commands).splitlines()) == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_lead_to_files(page: Path) -> None:
    content = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", content):
        assert (page.parent / link).exists(), link
    for path in re.findall(r"(?<![\w/.-])(?:minisbert|kernels|tests|benchmarks|docs|examples)/[\w/.-]*", content):
        assert (page.parent / path.rstrip(".")).exists() or (ROOT / path.rstrip(".")).exists(), path


SCRIPTS: dict[str, list[list[str]]] = {  # examples, each with those it needs before it, and their arguments
    "semantic_search.py": [[]],
    "evaluate_sts.py": [["--dtypes", "float32,int8"]],
    "mine_and_train.py": [["--epochs", "1"]],
    "train_on_pairs.py": [["--steps", "2"]],
    "reproduce_card.py": [["train_on_pairs.py", "--steps", "2"], ["my-model", "--steps", "2"]],
    "train_matryoshka.py": [["--steps", "2"]],
    "train_lora.py": [["--steps", "2"]],
    "train_several.py": [["--steps", "2"]],
    "train_large_batch.py": [["--steps", "2"]],
    "distill.py": [["--steps", "2"]],
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", SCRIPTS)
def test_example(
    name: str, minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= 60
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as Python does for a script
    *before, arguments = SCRIPTS[name]
    for command in [*before, [name, *arguments]]:
        monkeypatch.setattr(sys, "argv", command)
        runpy.run_path(str(EXAMPLES / command[0]), run_name="__main__")
    assert capsys.readouterr().out
    if name == "reproduce_card.py":
        assert SentenceTransformer("my-next-model").encode("a text").shape == (384,)


def test_examples_are_listed() -> None:
    listed = re.findall(r"^\| \[(\w+\.py)\]", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(SCRIPTS) == sorted(listed) == sorted(path.name for path in EXAMPLES.glob("*.py"))


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 160


def test_the_tree_names_every_folder() -> None:
    tree = next(block.text for block in blocks(ROOT / "README.md") if block.language == "text")
    inner = {f"{name}/" for top in ("minisbert", "kernels") for name in folders(ROOT / top)}
    assert set(re.findall(r"^    (\S+/)", tree, flags=re.MULTILINE)) == inner
    assert set(re.findall(r"^(\S+/)", tree, flags=re.MULTILINE)) <= {f"{name}/" for name in folders(ROOT)}


def folders(place: Path) -> set[str]:
    """Names of the folders there that hold files of the repository."""
    return {path.name for path in place.iterdir() if path.is_dir() and path.name[0] not in "._"}


def test_every_public_name_has_a_place_in_the_reference() -> None:
    shown = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
    minisbert = importlib.import_module("minisbert")
    missing = [name for name in minisbert.__all__ if not re.search(rf"^::: minisbert\.{name}$", shown, re.MULTILINE)]
    assert not missing


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r'"([\w/-]+\.md)"', (DOCS / "zensical.toml").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_figures_are_those_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    report = importlib.import_module("report")
    tables = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert f"{report.START}\n\n{report.render()}\n\n{report.END}" in tables
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{report.HEADLINE_START}\n\n{report.headline()}\n\n{report.HEADLINE_END}" in readme
    families = report.families_in_short(report._read("families"))
    page = (DOCS / "families.md").read_text(encoding="utf-8")
    assert f"{report.FAMILIES_START}\n\n{families}\n\n{report.FAMILIES_END}" in page
    picture = (ROOT / "benchmarks" / "results" / "encode.svg").read_text(encoding="utf-8")
    for one in report._read("encode")["classes"].values():
        for name, contender in one["contenders"].items():
            if f"{name}, best batch" in one["contenders"]:
                continue  # drawn in its best setting
            assert f"<!-- {contender['texts_per_second']:,.0f} -->" in picture  # the text of what is drawn as outlines
