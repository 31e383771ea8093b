"""minisbert.compat in place of sentence-transformers, for as long as a test runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from minisbert import compat


@contextmanager
def installed() -> Iterator[None]:
    """Answer imports of sentence_transformers by minisbert.compat; the real package, if loaded, is put aside."""
    real = {name: sys.modules.pop(name) for name in [*sys.modules] if name.split(".")[0] == "sentence_transformers"}
    compat.install()
    try:
        yield
    finally:
        compat.uninstall()
        sys.modules.update(real)
