"""Checks of settings: numbers, choices, and mappings of names to values."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from types import NoneType
from typing import Any, get_args


def plain(value: Any) -> Any:
    """Convert a number of numpy, such as from a grid of settings, to Python's own; copy a mapping or a list."""
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(plain(one) for one in value)
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def mismatch(value: Any, types: tuple[Any, ...], *, least: int) -> str | None:
    """Return what a setting of these types must be, or None if `value` is that; `least` bounds whole numbers."""
    if value is None and NoneType in types:
        return None
    if bool in types:
        return None if isinstance(value, bool) else "True or False"
    if int in types:
        fits = _is_number(value) and isinstance(value, int) and least <= value < 2**32
        return None if fits else f"a whole number from {least} to {2**32 - 1}"
    if float in types:  # a whole number can be too large for a float, which every use of it would need
        return None if _is_number(value) and 0 <= value <= sys.float_info.max else "a number from 0"
    if str in types:
        return None if isinstance(value, str) and value else "a name"
    choices = [choice for one in types for choice in get_args(one) or (one,)]  # a Literal, or one in a union
    shown = ", ".join("None" if choice is NoneType else repr(choice) for choice in choices)
    return None if isinstance(value, str) and value in choices else f"one of {shown}"


def rates_problem(value: Any) -> str | None:
    """Return what rates by name must be, or None if `value` is that."""
    right = isinstance(value, Mapping) and all(
        isinstance(name, str) and name and _is_number(rate) and 0 <= rate <= sys.float_info.max
        for name, rate in value.items()
    )
    return None if right else "numbers from 0 by name, in a dict"


def pattern_rates_problem(value: Any) -> str | None:
    """Return what rates by regular expression must be, or None if `value` is that."""
    return rates_problem(value) or _expression_problem(value)


def patterns_problem(value: Any) -> str | None:
    """Return what a list of regular expressions must be, or None if `value` is that."""
    if not isinstance(value, tuple) or not all(isinstance(one, str) and one for one in value):
        return "a list of names"
    return _expression_problem(value)


def _expression_problem(expressions: Iterable[str]) -> str | None:
    for expression in expressions:
        try:
            re.compile(expression)
        except re.error as error:
            return f"regular expressions, and {expression!r} is none ({error})"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
