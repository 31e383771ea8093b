"""Older names and places of arguments, which are not in the signature of what takes them; and arguments too many."""

from __future__ import annotations

import difflib
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
                    raise TypeError(
                        f"{function.__qualname__}() got {name} twice; expected it once: it is an argument with two "
                        f"names or places"
                    )
                given[name] = value
            return function(*taken, **options)

        return renaming

    return decorate


def refuse_more(
    where: str,
    options: Mapping[str, Any],
    places: Sequence[Any] = (),
    *,
    known: Collection[str] = (),
    names: Collection[str] = (),
) -> None:
    """Refuse what a `**kwargs` or `*args` of the reference would take for other kinds of models.

    Args:
        where: that takes it, for the message.
        options: what was given by name.
        places: what was given by place.
        known: names that make no difference.
        names: those of other arguments, for the message.

    Raises:
        ConfigError: there is something else.
    """
    others = [name for name in options if name not in known]
    if others or places:
        got = f"{others[0]}={shown(options[others[0]])}" if others else shown(places[0])
        near = difflib.get_close_matches(others[0], [*names, *known], n=1) if others else []
        expected = f"{near[0]}: fix the name" if near else "none: leave it out"
        raise ConfigError(f"got {got} for {where}, which has no such argument here; expected {expected}")
