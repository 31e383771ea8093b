"""Files that are opened only if they are files."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def is_file(path: Path) -> bool:
    """Whether there is a file, or a link to one, that can be looked at: no folder, no pipe, no device."""
    return os.path.isfile(path)  # noqa: PTH113  # Path's own raises for names that no file can have


def open_file(path: Path) -> BinaryIO:
    """Open a file to read. Of a pipe nobody may ever write the end, and a device need not have one.

    Raises:
        OSError: it cannot be opened, or is no file.
        ValueError: no file can have that name.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise OSError(errno.EINVAL, f"{kind}, not a file")
    return path.open("rb")
