"""A model with prompts, and texts, for tests of adapters."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from minisbert import SentenceTransformer

os.environ |= {"HAYSTACK_TELEMETRY_ENABLED": "False", "ANONYMIZED_TELEMETRY": "False", "HF_HUB_OFFLINE": "1"}
PROMPTS = {"query": "question: ", "document": "a text: "}


@pytest.fixture(scope="session")
def folder(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small random model that embeds a text as a query, as a document and as it is differently."""
    folder = tmp_path_factory.mktemp("adapters") / "prompted"
    SentenceTransformer(tiny("bert"), device="cpu", prompts=PROMPTS).save_pretrained(folder, create_model_card=False)
    return folder


@pytest.fixture(scope="session")
def model(folder: Path) -> SentenceTransformer:
    """The model in that folder."""
    return SentenceTransformer(folder, device="cpu")


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Texts that are not equal, with white space that stays."""
    return ["a cat sat on the mat", "the red sea\nis wide", " dogs run in  the park ", "a red dog"]
