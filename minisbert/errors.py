"""What minisbert raises when its user can mend something.

    MinisbertError
    ├── ConfigError      (ValueError)       an option whose value cannot work: whoever wrote the call
    ├── InputError       (ValueError)       texts, rows, labels or files that cannot be used: whoever has the data
    ├── InputTypeError   (TypeError)        an argument of a kind that cannot be used: whoever wrote the call
    ├── ModelError       (ValueError)       a model that cannot be found or read: whoever made or copied the model
    ├── PoolError        (RuntimeError)     processes that cannot be started, or have ended: whoever runs the machine
    └── DivergenceError  (ArithmeticError)  training whose numbers are no longer finite: whoever chose the settings

After the colon stands who can mend it. Each message is one line: what was got, what was expected, and how to mend it.
Anything else that is raised is a defect of minisbert.

Training that is asked to stop raises what Python raises then, so that no `except Exception` goes on after it:
TrainingInterrupted (KeyboardInterrupt) for Ctrl-C, and TrainingTerminated (SystemExit) for SIGTERM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST = 2000  # characters; a message quotes what was got, which can be of any length


class MinisbertError(Exception):
    """Base of every error that the user of the library can mend.

    Its message is put on one line. What does not print is shown as in Python's own literals.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_one_line(message))


def _one_line(message: str) -> str:
    if len(message) > _LONGEST:
        message = f"{message[: _LONGEST // 2]} ... {message[-_LONGEST // 2 :]}"
    if message.isprintable():
        return message
    message = " ".join(line.strip() for line in message.splitlines())
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in message)


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
    """Gradients or weights are not finite, and training cannot go on."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C ended training after a whole step.

    Attributes:
        checkpoint: the folder to go on from, or None where there was no place to save one.
    """

    def __init__(self, message: str, *, checkpoint: Path | None) -> None:
        super().__init__(message)
        self.checkpoint = checkpoint


class TrainingTerminated(SystemExit):
    """SIGTERM ended training after a whole step; where nobody catches it, the process exits with status 143.

    Attributes:
        checkpoint: the folder to go on from, or None where there was no place to save one.
    """

    def __init__(self, message: str, *, checkpoint: Path | None) -> None:
        super().__init__(message)
        self.code = 143  # what shells make of an end by SIGTERM
        self.checkpoint = checkpoint


class TruncationWarning(UserWarning):
    """Some texts were longer than the model reads; what is beyond that was cut off."""
