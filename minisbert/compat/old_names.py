"""Older names of arguments, which are not in the signature of what takes them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

Options = ParamSpec("Options")
Result = TypeVar("Result")


def old_names(**names: str) -> Callable[[Callable[Options, Result]], Callable[Options, Result]]:
    """Let a function also take arguments by older names: `old_names(sentences="inputs")`.

    Raises:
        TypeError: an argument is given by both names.
    """

    def decorate(function: Callable[Options, Result]) -> Callable[Options, Result]:
        @functools.wraps(function)
        def renaming(*args: Options.args, **options: Options.kwargs) -> Result:
            given: dict[str, Any] = options
            for old, new in names.items():
                if old in given:
                    if new in given:
                        raise TypeError(f"got both {old} and {new}; expected one of them: they are the same argument")
                    given[new] = given.pop(old)
            return function(*args, **options)

        return renaming

    return decorate
