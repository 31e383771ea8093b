"""The page for those who move code over: it has every argument of the reference, and names that exist here."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from places import ROOT

import minisbert
from minisbert import SentenceTransformer, Trainer, TrainingConfig, evaluation, losses

PAGE = (ROOT / "docs" / "from-sentence-transformers.md").read_text(encoding="utf-8")
TABLES = PAGE[PAGE.index("<!-- tables: start -->") : PAGE.index("<!-- tables: end -->")]
ARGUMENTS = "SentenceTransformerTrainingArguments"
CODE = re.compile(r"`([^`]+)`")


def names_of(function: Callable[..., Any]) -> set[str]:
    """The names of a function's parameters."""
    return set(inspect.signature(function).parameters) - {"self"}


def of_all(module: Any) -> set[str]:
    """The parameters of all classes that a package offers."""
    classes = [getattr(module, name) for name in module.__all__ if inspect.isclass(getattr(module, name))]
    return {name for one in classes for name in names_of(one)}


FIELDS = {one.name for one in dataclasses.fields(TrainingConfig)}
HERE = {  # the names that may stand on the right, by section
    "SentenceTransformer": names_of(SentenceTransformer),
    "encode": names_of(SentenceTransformer.encode),
    "save_pretrained": names_of(SentenceTransformer.save_pretrained),
    "push_to_hub": names_of(SentenceTransformer.push_to_hub),
    "fit": names_of(SentenceTransformer.fit),
    "SentenceTransformerTrainer": names_of(Trainer),
    ARGUMENTS: FIELDS,
    "Losses": of_all(losses),
    "Evaluators": of_all(evaluation),
}


def rows(section: str) -> Iterator[tuple[list[str], str]]:
    """The names on the left and the cell on the right of each row of a section and those below it."""
    text = re.search(rf"^## {section}$(.*?)(?=^## |\Z)", TABLES, re.MULTILINE | re.DOTALL)
    assert text, section
    found = re.findall(r"^\| (`.*?) \| (.*) \|$", text[1], re.MULTILINE)
    assert found, section
    for left, right in found:
        yield CODE.findall(left), right


@pytest.mark.parametrize("section", HERE)
def test_every_name_on_the_right_exists(section: str) -> None:
    for left, right in rows(section):
        if right.startswith("the same"):
            assert {name for name in left if name.isidentifier()} <= HERE[section] or section in (
                "Losses",
                "Evaluators",
            )
        elif first := re.match(r"`(\w+)(?:=[^`]*)?`(, of (?:the )?`([\w.]+)`)?", right):
            owners = {None: HERE[section], "Trainer": names_of(Trainer), "Trainer.train": names_of(Trainer.train)}
            assert first[1] in owners[first[3]] | HERE[section], right
        else:
            beginnings = ("not there", "not needed", "refused", "by keyword", "may be left out", "of the `Trainer`")
            assert right.startswith((*beginnings, "the same", "`SentenceTransformer(")), right
        for name in re.findall(r"`(\w+)(?:=[^`]*)?`, (?:which|in steps|a whole|one of)", right):
            assert name in HERE[section], right


def test_names_of_the_first_table_exist() -> None:
    table = PAGE[PAGE.index("## Names") : PAGE.index("<!-- tables: start -->")]
    found = re.findall(r"\| `(minisbert[\w.]*)`", table)
    assert len(found) > 10
    for name in found:
        *path, last = name.split(".")
        assert hasattr(importlib.import_module(".".join(path)), last), name


def test_new_arguments_are_named() -> None:
    """What only minisbert has is in the text of its section, every setting of a run included."""
    for section in HERE.keys() - {"Losses", "Evaluators"}:
        text = TABLES[TABLES.index(f"\n## {section}\n") :].partition("\n## ")[2].partition("\n## ")[0]
        missing = {name for name in HERE[section] if not re.search(rf"[`(]{name}\b", text)}
        assert not missing, section


@pytest.mark.parity
def test_every_argument_of_the_reference_is_on_the_page() -> None:
    reference = pytest.importorskip("sentence_transformers")
    pytest.importorskip("accelerate")
    kinds = {
        "SentenceTransformer": reference.SentenceTransformer,
        "encode": reference.SentenceTransformer.encode,
        "save_pretrained": reference.SentenceTransformer.save_pretrained,
        "push_to_hub": reference.SentenceTransformer.push_to_hub,
        "fit": reference.SentenceTransformer.fit,
        "SentenceTransformerTrainer": reference.SentenceTransformerTrainer,
        ARGUMENTS: reference.SentenceTransformerTrainingArguments,
    }
    for section, kind in kinds.items():
        left = [name for names, _ in rows(section) for name in names]
        assert sorted(left) == sorted(names_of(kind)), section
    count = len(names_of(reference.SentenceTransformerTrainingArguments))
    assert f"All {count} of them" in PAGE


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("section", "package"), [("Losses", "losses"), ("Evaluators", "evaluation")])
def test_every_other_argument_of_losses_and_evaluators_is_on_the_page(section: str, package: str) -> None:
    pytest.importorskip("sentence_transformers.base")  # from 6.0 on
    module = importlib.import_module(f"sentence_transformers.sentence_transformer.{package}")
    here = getattr(minisbert, package)
    left = {re.split(r"\W", name)[0] for names, _ in rows(section) for name in names}
    compared = 0
    for name in dir(module):
        kind, own = getattr(module, name), getattr(here, name, None)
        if inspect.isclass(kind) and own is not None and not hasattr(kind, "__members__"):
            compared += 1
            assert names_of(kind) - names_of(own) - {"args", "kwargs"} <= left, name
    assert compared > 10
