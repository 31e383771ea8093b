"""What the tests of several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands without --device run on the CPU, as what they are compared with does."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)


@pytest.fixture(scope="module")
def model(tiny: Callable[[str], Path]) -> str:
    """The folder of a tiny model."""
    return str(tiny("bert"))
