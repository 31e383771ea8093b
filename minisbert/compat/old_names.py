"""Older names and places of arguments, which are not in the signature of what takes them; and arguments too many."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from ..errors import ConfigError, shown

Options = ParamSpec("Options")
Result = TypeVar("Result")


def old_names(*places: str, **names: str) -> Callable[[Callable[Options, Result]], Callable[Options, Result]]:
    """Let a function also take arguments as older versions did: `old_names("modules", sentences="inputs")`.

    Args:
        places: names of arguments that could once be given by their place, after those that still can.
        names: the name that an argument had, and has.

    Raises:
        TypeError: an argument is given twice.
    """

    def decorate(function: Callable[Options, Result]) -> Callable[Options, Result]:
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        count = sum(one.kind in kinds for one in inspect.signature(function).parameters.values())

        @functools.wraps(function)
        def renaming(*args: Options.args, **options: Options.kwargs) -> Result:
            given: dict[str, Any] = options
            by_place = dict(zip(places, args[count:], strict=False))
            taken: Any = args[:count] + args[count + len(by_place) :]
            for name, value in (
                *by_place.items(),
                *((new, given.pop(old)) for old, new in names.items() if old in given),
            ):
                if name in given:
                    raise TypeError(f"got {name} twice; expected it once: it is an argument with two names or places")
                given[name] = value
            return function(*taken, **options)

        return renaming

    return decorate


def refuse_more(
    where: str, options: Mapping[str, Any], places: Sequence[Any] = (), *, known: Collection[str] = ()
) -> None:
    """Refuse what a `**kwargs` or `*args` of the reference would take for other kinds of models.

    Args:
        where: that takes it, for the message.
        options: what was given by name.
        places: what was given by place.
        known: names that make no difference.

    Raises:
        ConfigError: there is something else.
    """
    others = [name for name in options if name not in known]
    if others or places:
        got = f"{others[0]}={shown(options[others[0]])}" if others else shown(places[0])
        raise ConfigError(f"got {got} for {where}, which has no such argument here; expected none: leave it out")
