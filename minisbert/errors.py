"""Errors that the user of minisbert can fix.

    MinisbertError
    ├── ConfigError      (ValueError)       an option has a value that cannot work: fix the call
    ├── InputError       (ValueError)       texts, rows, labels or files cannot be used: fix the data
    ├── InputTypeError   (TypeError)        an argument has a type that cannot be used: fix the call
    ├── ModelError       (ValueError)       a model cannot be found, read or uploaded: fix it, or the access
    ├── PoolError        (RuntimeError)     processes cannot be started, or have ended: check the machine
    └── DivergenceError  (ArithmeticError)  gradients or weights are no longer finite: change the settings

Each message is one line that says what was got, what was expected, and how to fix it. Any other exception is a bug in
minisbert.

Training that is asked to stop raises TrainingInterrupted (KeyboardInterrupt) for Ctrl-C and TrainingTerminated
(SystemExit) for SIGTERM, as Python does, so that no `except Exception` keeps it running.
"""

from __future__ import annotations

import functools
import reprlib
import sys
import warnings
from operator import index
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_LONGEST_MESSAGE = 2000  # characters
_SHOWN = 3  # names that are like another one
_NOT_THE_CALLER = frozenset({"minisbert", "torch", "contextlib", "functools"})
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 20


def shown(value: Any) -> str:
    """Return the repr of a value for an error message, with long texts and collections abbreviated."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return f"a value of type {type(value).__name__}"


def check_count(value: Any, name: str, *, least: int = 1, most: int | None = None, otherwise: str = "") -> int:
    """Return a whole number of any integer type as one of Python's own.

    Args:
        value: the number.
        name: of the argument, for the message.
        least: the smallest that is taken.
        most: the largest that is taken, or None for any.
        otherwise: what else the caller takes, for the message, such as "None to choose one".

    Raises:
        ConfigError: it is none, or outside these bounds.
    """
    try:
        count = None if isinstance(value, bool) else index(value)
    except TypeError:
        count = None
    too_large = count is not None and most is not None and count > most
    if count is None or count < least or too_large:
        limit = f" and at most {most}" if too_large else ""
        other = f", or {otherwise}" if otherwise else ""
        raise ConfigError(f"got {name}={shown(value)}; expected a whole number of at least {least}{limit}{other}")
    return count


def check_flag(value: Any, name: str) -> bool:
    """Return True or False.

    Raises:
        ConfigError: it is neither.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"got {name}={shown(value)}; expected True or False")
    return value


def nearest(name: str, known: Collection[str], *, otherwise: Collection[str]) -> str:
    """Return a few names for an error message: those most like `name`, which may be a regular expression.

    Args:
        name: what was looked for.
        known: names that it is compared with.
        otherwise: names of which the first are shown if none is like it.
    """
    import difflib  # few need it

    found = difflib.get_close_matches(name.replace("\\", ""), known, n=_SHOWN, cutoff=0.3)
    return ", ".join(found or [*otherwise][:_SHOWN])


def first_line(error: BaseException) -> str:
    """Return the first line of the message of another library's error, to quote it in one of ours."""
    return str(error).strip().split("\n")[0]


def one_line(message: str) -> str:
    """Return a message on one line; characters that do not print are escaped as in Python's literals."""
    if message.isprintable():
        return message
    message = " ".join(line.strip() for line in message.splitlines())
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in message)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn of something at the line of the caller's own code, the nearest one outside this package and torch."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_library(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(one_line(message), category, stacklevel=level)


def _is_library(name: Any) -> bool:
    """Return True for the name of a module that is not the caller's; Python drops warnings at one without a name."""
    return not isinstance(name, str) or name.partition(".")[0] in _NOT_THE_CALLER


class MinisbertError(Exception):
    """Base of every error that the user of the library can fix.

    Its message is put on one line; characters that do not print are escaped as in Python's literals.

    Attributes:
        told: True if another process of the run raises the same and tells the user.
    """

    told = False

    def __init__(self, message: str = "") -> None:
        if len(message) > _LONGEST_MESSAGE:
            message = f"{message[: _LONGEST_MESSAGE // 2]} ... {message[-_LONGEST_MESSAGE // 2 :]}"
        super().__init__(one_line(message))


class ConfigError(MinisbertError, ValueError):
    """An option or argument has a value that cannot work."""


class InputError(MinisbertError, ValueError):
    """Texts, rows, labels or data files cannot be used as they are."""


class InputTypeError(MinisbertError, TypeError):
    """An argument is of a type that cannot be used."""


class ModelError(MinisbertError, ValueError):
    """A model cannot be found, or its files cannot be read."""


class PoolError(MinisbertError, RuntimeError):
    """The processes of an encoding pool cannot be started, or have ended."""


class DivergenceError(MinisbertError, ArithmeticError):
    """Gradients or weights are not finite, and training cannot continue."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C ended training after a whole step.

    Attributes:
        checkpoint: the folder to resume from, or None if nothing could be saved.
    """

    def __init__(self, message: str, *, checkpoint: Path | None) -> None:
        super().__init__(message)
        self.checkpoint = checkpoint

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the checkpoint too, which is not among the arguments that exceptions keep."""
        return functools.partial(type(self), checkpoint=self.checkpoint), self.args


class TrainingTerminated(SystemExit):
    """SIGTERM ended training after a whole step; if it is not caught, the process exits with status 143.

    Attributes:
        checkpoint: the folder to resume from, or None if nothing could be saved.
    """

    def __init__(self, message: str, *, checkpoint: Path | None) -> None:
        super().__init__(message)
        self.code = 143  # the status that shells report for an end by SIGTERM
        self.checkpoint = checkpoint

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the checkpoint too, which is not among the arguments that exceptions keep."""
        return functools.partial(type(self), checkpoint=self.checkpoint), self.args


class TruncationWarning(UserWarning):
    """Some texts are longer than the model reads and were cut off."""


def line_error(source: str | Path, number: int, problem: str, *, noun: str = "line") -> InputError:
    """Return the error to raise for a line of a file."""
    return InputError(f"{source}, {noun} {number}: {problem}")
