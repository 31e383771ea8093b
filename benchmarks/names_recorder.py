"""A pytest plugin that records which functions of minisbert were called: `-p names_recorder`.

The file that the environment variable NAMES_RECORD names gets one line `file:line` for each, where the line is the
first of the function. Tests run in one process then (`-n 0`); what they start is not seen.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_called: set[CodeType] = set()


def _record(frame: FrameType, event: str, _: Any) -> None:
    if event == "call":
        _called.add(frame.f_code)


def pytest_sessionstart() -> None:
    threading.setprofile(_record)
    sys.setprofile(_record)


def pytest_sessionfinish() -> None:
    sys.setprofile(None)
    threading.setprofile(None)  # type: ignore[arg-type]
    lines = {f"{Path(one.co_filename)}:{one.co_firstlineno}" for one in _called if "minisbert" in one.co_filename}
    Path(os.environ["NAMES_RECORD"]).write_text("\n".join(sorted(lines)), encoding="utf-8")
