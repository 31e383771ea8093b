"""The Triton kernels under Triton's interpreter: every test_triton_<operation>.py in one process of its own.

It takes longer than all else together that one process tests, so it begins with the session and runs beside it.
"""

from __future__ import annotations

import subprocess

import pytest

pytest.importorskip("triton")


def test_numbers_under_the_interpreter(under_the_interpreter: subprocess.Popen[str]) -> None:
    said, _ = under_the_interpreter.communicate()
    assert under_the_interpreter.returncode == 0, said
    assert "passed" in said
