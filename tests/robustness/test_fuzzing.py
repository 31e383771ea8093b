"""Wrong files of every kind end in success or in one of our errors; a short form of tests/robustness/fuzzing.py."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from places import ROOT

from minisbert.errors import InputError

INPUTS = {
    "safetensors": 400,
    "safetensors index": 200,
    "pickled weights": 60,
    "modules.json": 60,
    "config.json": 30,
    "sentence_bert_config.json": 30,
    "config_sentence_transformers.json": 30,
    "pooling": 30,
    "dense": 30,
    "tokenizer.json": 30,
    "tokenizer_config.json": 30,
    "cards": 30,
    "recipes": 30,
    "tsv": 200,
    "csv": 200,
    "jsonl": 200,
    "tsv.gz": 200,
    "texts": 200,
    "queries": 200,
    "qrels": 200,
}


@pytest.fixture
def fuzzing(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "robustness"))
    return importlib.import_module("fuzzing")


@pytest.mark.parametrize("name", INPUTS)
def test_wrong_files(name: str, fuzzing: ModuleType) -> None:
    outcome = fuzzing.run(fuzzing.TARGETS[name], inputs=INPUTS[name], seed=1)
    assert outcome.failures == []
    assert outcome.inputs == INPUTS[name] == outcome.succeeded + outcome.refused
    assert outcome.succeeded
    assert outcome.refused


def test_every_target_is_tried(fuzzing: ModuleType) -> None:
    assert set(fuzzing.TARGETS) == set(INPUTS)


def test_equal_seeds_make_equal_inputs(fuzzing: ModuleType) -> None:
    seen: list[list[bytes]] = []
    for seed in (1, 1, 2):
        contents: list[bytes] = []

        def feed(folder: Path, content: bytes, contents: list[bytes] = contents) -> None:
            contents.append(content)

        fuzzing.run(fuzzing.Target(lambda: [b"a\tb\n1\t2\n"], fuzzing.texts.change_lines, feed), inputs=50, seed=seed)
        seen.append(contents)
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize(
    ("read_it", "verdict"),
    [
        (lambda: None, "read"),
        (lambda: (_ for _ in ()).throw(InputError("no")), "refused"),
        (lambda: (_ for _ in ()).throw(InputError("")), "not one line"),
        (lambda: [][1], "IndexError"),
        (lambda: bytearray(600_000_000).count(1), "bytes of memory"),
    ],
)
def test_verdicts(read_it: Callable[[], Any], verdict: str, fuzzing: ModuleType) -> None:
    def feed(folder: Path, content: bytes) -> None:
        if content != b"good":
            read_it()

    outcome = fuzzing.run(fuzzing.Target(lambda: [b"good"], lambda content, draw: b"bad", feed), inputs=2)
    assert (outcome.succeeded, outcome.refused) == (1 + (verdict == "read"), int(verdict == "refused"))
    assert [content for content, _ in outcome.failures] == ([] if verdict in ("read", "refused") else [b"bad"])
    assert all(verdict in told for _, told in outcome.failures)


def test_what_hangs_is_ended(fuzzing: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz.harness.LONGEST_INPUT", 0.05)

    def feed(folder: Path, content: bytes) -> None:
        while content:
            pass

    outcome = fuzzing.run(fuzzing.Target(lambda: [b""], lambda content, draw: b"x", feed), inputs=2)
    assert [told[:5] for _, told in outcome.failures] == ["Hang("]
