"""The main module of a process that multiprocessing has spawned from `python -m minisbert.compat`."""

from __future__ import annotations

import os
import sys

from .finder import install
from .main import MAIN_VARIABLE, compiled

if __name__ == "__mp_main__":
    install()
    if MAIN_VARIABLE in os.environ:
        __file__, _, _package = os.environ[MAIN_VARIABLE].partition("\n")
        __package__ = _package or None
        sys.argv[0] = __file__
        exec(compiled(__file__), globals())  # noqa: S102  (the parent's own script)
