"""One run at a time in an output folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConfigError


@contextmanager
def alone_in(folder: Path | None) -> Iterator[None]:
    """Keep other runs out of a folder for a block of code, also where this process is killed in it.

    Where the system has no such locks, or the folder cannot be made, nothing is kept out.

    Raises:
        ConfigError: another run is in it.
    """
    descriptor = _locked(folder) if folder is not None else None
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _locked(folder: Path) -> int | None:
    try:
        import fcntl
    except ImportError:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # what is to be written there says so
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise ConfigError(
                f"another run writes to {folder}; expected a folder of its own: wait for it, or choose another"
            ) from None
        return None
    return descriptor
