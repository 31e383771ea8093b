"""The tree of our errors is the one that is documented, and each message is one line."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from minisbert import errors

TREE = {
    "ConfigError": ValueError,
    "InputError": ValueError,
    "InputTypeError": TypeError,
    "ModelError": ValueError,
    "PoolError": RuntimeError,
    "DivergenceError": ArithmeticError,
}
STOPS = {"TrainingInterrupted": KeyboardInterrupt, "TrainingTerminated": SystemExit}


def test_the_tree_is_as_documented() -> None:
    documented = dict(re.findall(r"[├└]── (\w+) +\((\w+)\)", errors.__doc__ or ""))
    assert documented == {name: base.__name__ for name, base in TREE.items()}
    classes = {
        name: one for name, one in inspect.getmembers(errors, inspect.isclass) if one.__module__ == errors.__name__
    }
    assert set(classes) == {"MinisbertError", "TruncationWarning", *TREE, *STOPS}
    assert {name: classes[name].__bases__ for name in STOPS} == {name: (base,) for name, base in STOPS.items()}
    assert {name: classes[name].__bases__ for name in TREE} == {
        name: (errors.MinisbertError, base) for name, base in TREE.items()
    }
    assert errors.MinisbertError.__bases__ == (Exception,)


@pytest.mark.parametrize("name", TREE)
def test_each_error_says_what_it_means_and_who_can_mend_it(name: str) -> None:
    line = re.search(rf"── {name} .*\)  +\S.*: \w.*", errors.__doc__ or "")
    assert line is not None
    assert getattr(errors, name).__doc__.endswith(".")


def test_a_message_is_one_line() -> None:
    assert str(errors.InputError("got 'a'\n   and\r\nmore")) == "got 'a' and more"
    assert str(errors.ModelError("a\x1b[2Jb\x00c\ud800d")) == r"a\x1b[2Jb\x00c\ud800d"
    assert str(errors.ConfigError("naïve 我们 😀")) == "naïve 我们 😀"


def test_a_message_is_cut_in_the_middle() -> None:
    message = str(errors.InputError("got " + "x" * 10**6 + "; expected less"))
    assert len(message) < 2100
    assert message.startswith("got xxx")
    assert message.endswith("xxx; expected less")


@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_travel_between_processes(copied: object) -> None:
    again = copied(errors.PoolError("a process ended"))  # type: ignore[operator]
    assert type(again) is errors.PoolError
    assert str(again) == "a process ended"
