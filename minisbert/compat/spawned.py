"""The main module of a process that multiprocessing has spawned from `python -m minisbert.compat`."""

from __future__ import annotations

import os
import sys

from .finder import install
from .main import MAIN_VARIABLE, MainSpec, compiled

if __name__ == "__mp_main__":
    install()
    if MAIN_VARIABLE in os.environ:
        path, _, package = os.environ[MAIN_VARIABLE].partition("\n")
        globals().update(__file__=path, __package__=package or None, __spec__=MainSpec(package))
        sys.argv[0] = path
        exec(compiled(path), globals())  # noqa: S102  (the parent's own script)
