"""What minisbert raises when its user can mend something.

    MinisbertError
    ├── ConfigError     (ValueError)  an option whose value cannot work
    ├── InputError      (ValueError)  texts, rows, labels or files that cannot be used
    ├── InputTypeError  (TypeError)   an argument of a kind that cannot be used
    ├── ModelError      (ValueError)  a model that cannot be found or read
    └── PoolError       (RuntimeError)  processes that cannot be started, or have ended

Each message is one line: what was got, what was expected, and how to mend it. Anything else that is raised is a
defect of minisbert.
"""

from __future__ import annotations


class MinisbertError(Exception):
    """Base of every error that the user of the library can mend."""


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


class TruncationWarning(UserWarning):
    """Some texts were longer than the model reads; what is beyond that was cut off."""
