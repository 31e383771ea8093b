"""Embedders of other libraries: they embed with the model that was given, and no other."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from minisbert import SentenceTransformer

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries that these import


class BaseEmbedder:
    """The base class of both libraries, as far as a model meets it."""

    def __init__(self, embedding_model: Any = None, word_embedding_model: Any = None) -> None:
        self.embedding_model, self.word_embedding_model = embedding_model, word_embedding_model


@pytest.fixture(params=["keybert", "bertopic"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A library: the real one if it is installed, or its base class alone."""
    name: str = request.param
    try:
        importlib.import_module(f"{name}.backend")
    except ImportError:
        package, backend = ModuleType(name), ModuleType(f"{name}.backend")
        backend.BaseEmbedder = BaseEmbedder  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, package)
        monkeypatch.setitem(sys.modules, f"{name}.backend", backend)
    monkeypatch.delitem(sys.modules, f"minisbert.adapters.{name}", raising=False)
    return name


def test_embeddings_are_those_of_the_model(library: str, tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu")
    embedder = importlib.import_module(f"minisbert.adapters.{library}").Embedder(model)
    assert isinstance(embedder, sys.modules[f"{library}.backend"].BaseEmbedder)
    texts = ["a cat sat", "red sea"]
    for given in (texts, np.array(texts), tuple(texts)):
        assert np.array_equal(embedder.embed(given), model.encode(texts))
    assert np.array_equal(embedder.embed(texts, verbose=True), model.encode(texts))


def test_keybert_ranks_phrases_by_the_model(tiny: Callable[[str], Path]) -> None:
    keybert = pytest.importorskip("keybert")
    embedder = importlib.import_module("minisbert.adapters.keybert").Embedder
    model = SentenceTransformer(tiny("bert"), device="cpu")
    words = ["cat", "mat", "sat"]
    found = keybert.KeyBERT(embedder(model)).extract_keywords("cat sat mat", candidates=words, top_n=3)
    expected = model.similarity(model.encode(words), model.encode(["cat sat mat"]))[:, 0].tolist()
    assert dict(found) == pytest.approx(dict(zip(words, expected, strict=True)), abs=1e-3)
