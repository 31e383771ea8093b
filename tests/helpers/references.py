"""Versions of sentence-transformers, each run in an interpreter of its own.

The environment variable MINISBERT_REFERENCES names the folders of virtual environments with older versions, joined by
the path separator; the version installed beside minisbert is always there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest


@cache
def _pythons() -> dict[str, Path]:
    """Interpreter of each version there is, such as "5.1.2"."""
    found = {version("sentence-transformers"): Path(sys.executable)}
    for folder in filter(None, os.environ.get("MINISBERT_REFERENCES", "").split(os.pathsep)):
        python = Path(folder) / "bin" / "python"
        command = "from importlib.metadata import version; print(version('sentence-transformers'))"
        found[_output(python, "-c", command).strip()] = python
    return found


def versions() -> list[str]:
    """All versions there are, newest first."""
    return sorted(_pythons(), key=lambda name: [int(part) for part in name.split(".")], reverse=True)


def run_in(wanted: str, code: str, *arguments: object) -> Any:
    """Run `code` in the environment of a version; returns what it prints, read as JSON.

    The arguments stand in `sys.argv[1:]`. The calling test is skipped where the version is not at hand.
    """
    python = _pythons().get(wanted)
    if python is None:
        pytest.skip(f"MINISBERT_REFERENCES names no environment with sentence-transformers {wanted}")
    return json.loads(_output(python, "-c", code, *map(str, arguments)).splitlines()[-1])


def _output(python: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**environment, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        raise AssertionError(f"{python} failed:\n{done.stderr[-3000:]}")
    return done.stdout
