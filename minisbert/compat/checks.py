"""Checks of the kinds of arguments, each with an error of one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import InputTypeError, shown


def check_list(value: Any, name: str, *, of: str) -> Any:
    """Return several things in an order; one text is not.

    Args:
        value: a list, tuple or array.
        name: of the argument, for the message.
        of: what it holds, for the message.

    Raises:
        InputTypeError: it is something else.
    """
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable) or not hasattr(value, "__len__"):
        hint = "put a single one in a list" if isinstance(value, (str, bytes)) else "pass one"
        raise InputTypeError(f"got {name}={shown(value)}; expected a list of {of}: {hint}")
    return value


def check_mapping(value: Any, name: str, *, of: str) -> Any:
    """Return a dictionary.

    Args:
        value: the dictionary.
        name: of the argument, for the message.
        of: what it holds, for the message.

    Raises:
        InputTypeError: it is something else.
    """
    if not isinstance(value, Mapping):
        raise InputTypeError(f"got {name}={shown(value)}; expected {of}: pass a dict")
    return value


def check_function(value: Any, name: str, *, of: str) -> Any:
    """Return a function.

    Args:
        value: the function.
        name: of the argument, for the message.
        of: what it takes and returns, for the message.

    Raises:
        InputTypeError: it cannot be called.
    """
    if not callable(value):
        raise InputTypeError(f"got {name}={shown(value)}; expected a function {of}: pass one")
    return value
