"""Warnings point at the line of the code that calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from minisbert import SentenceTransformer
from minisbert.data.roles import training_rows
from minisbert.errors import TruncationWarning


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
