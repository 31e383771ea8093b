"""`python -m minisbert.compat script.py`: run code written for sentence-transformers with minisbert."""

from __future__ import annotations

import sys

from ..errors import ConfigError
from .finder import install
from .main import prepare

if __name__ == "__main__":
    install()
    try:
        run = prepare(sys.argv[1:])
    except ConfigError as error:
        sys.stderr.write(f"minisbert.compat: {error}\n")
        raise SystemExit(2) from None  # as Python's own wrong use
    except SyntaxError as error:  # in the script, which has no frame yet
        sys.excepthook(type(error), error.with_traceback(None), None)
        raise SystemExit(1) from None
    run()
