"""Warnings point at the line of the code that calls."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minisbert import SentenceTransformer
from minisbert.data.roles import training_rows
from minisbert.errors import ConfigError, TrainingInterrupted, TrainingTerminated, TruncationWarning, check_count, warn


def line_of(path: str, number: int) -> str:
    return Path(path).read_text(encoding="utf-8").splitlines()[number - 1]


@pytest.mark.parametrize(
    "call", ["model.encode(long)", "list(model.encode_iter([long]))", "training_rows([['', 'b']])"]
)
def test_a_warning_names_the_line_of_the_caller(call: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"# a comment\n{call}\n")
    names = {
        "model": SentenceTransformer(tiny("bert"), device="cpu"),
        "long": "a cat " * 100,
        "training_rows": training_rows,
    }
    with pytest.warns((UserWarning, TruncationWarning)) as caught:
        exec(compile(script.read_text(), str(script), "exec"), {"__name__": "__main__", **names})
    assert (caught[0].filename, caught[0].lineno) == (str(script), 2)
    assert line_of(caught[0].filename, caught[0].lineno) == call


def test_a_warning_is_one_line_and_needs_no_name_of_a_module() -> None:
    with pytest.warns(UserWarning, match="^first second$"):
        exec("warn('first\\n  second')", {"__name__": None, "warn": warn})


@pytest.mark.parametrize("kind", [TrainingInterrupted, TrainingTerminated])
def test_the_end_of_training_can_be_pickled(kind: type[TrainingInterrupted | TrainingTerminated]) -> None:
    again = pickle.loads(pickle.dumps(kind("stopped", checkpoint=Path("checkpoint-5"))))
    assert type(again) is kind
    assert (again.args, again.checkpoint) == (("stopped",), Path("checkpoint-5"))
    assert getattr(again, "code", 143) == 143


@pytest.mark.parametrize("value", [3, np.int64(3)], ids=["int", "numpy"])
def test_counts_of_any_integer_type_are_made_plain(value: Any) -> None:
    assert type(check_count(value, "size")) is int
    assert check_count(0, "size", least=0) == 0
    assert check_count(10**30, "size") == 10**30


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (0, {}, "got size=0; expected a whole number of at least 1"),
        (True, {}, "got size=True; expected a whole number of at least 1"),
        (2.0, {}, "got size=2.0; expected a whole number of at least 1"),
        (None, {"otherwise": "-1 for all"}, "got size=None; expected a whole number of at least 1, or -1 for all"),
        (4, {"least": 0, "most": 3}, "got size=4; expected a whole number of at least 0 and at most 3"),
        ("x" * 200, {}, f"got size='{'x' * 27}...{'x' * 28}'; expected a whole number of at least 1"),
    ],
)
def test_counts_that_are_refused(value: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_count(value, "size", **options)
    assert str(caught.value) == message
