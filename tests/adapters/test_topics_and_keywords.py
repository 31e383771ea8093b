"""Embedders of other libraries: they embed with the model that was given, and no other."""

from __future__ import annotations

import importlib
import sys
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


def test_embeddings_are_those_of_the_model(library: str, folder: Path, model: SentenceTransformer) -> None:
    texts = ["a cat sat", "red sea"]
    for given in (model, str(folder)):
        embedder = importlib.import_module(f"minisbert.adapters.{library}").Embedder(given)
        assert isinstance(embedder, sys.modules[f"{library}.backend"].BaseEmbedder)
        assert embedder.embedding_model is given
        for rows in (texts, np.array(texts), tuple(texts)):
            assert np.array_equal(embedder.embed(rows), model.encode(texts))
        assert np.array_equal(embedder.embed(texts, verbose=True), model.encode(texts))
    options = {"prompt": "p: ", "truncate_dim": 3, "normalize_embeddings": True}
    found = importlib.import_module(f"minisbert.adapters.{library}").Embedder(model, **options).embed(texts)
    assert np.array_equal(found, model.encode(texts, **options))


@pytest.mark.downstream
def test_keybert_ranks_phrases_by_the_model(model: SentenceTransformer) -> None:
    keybert = pytest.importorskip("keybert")
    embedder = importlib.import_module("minisbert.adapters.keybert").Embedder
    words = ["cat", "mat", "sat"]
    found = keybert.KeyBERT(embedder(model)).extract_keywords("cat sat mat", candidates=words, top_n=3)
    expected = model.similarity(model.encode(words), model.encode(["cat sat mat"]))[:, 0].tolist()
    assert dict(found) == pytest.approx(dict(zip(words, expected, strict=True)), abs=1e-3)


@pytest.mark.downstream
def test_a_keyllm_asks_once_for_documents_that_are_alike(model: SentenceTransformer) -> None:
    keybert = pytest.importorskip("keybert")
    from keybert.llm._base import BaseLLM

    class Echo(BaseLLM):
        asked: list[str] = []

        def extract_keywords(self, documents: list[str], candidate_keywords: Any = None) -> list[list[str]]:
            self.asked += documents
            return [[*words, "said"] for words in candidate_keywords]

    texts = ["a cat sat on the mat", "a cat sat on the mat", "the red sea is wide"]
    embedder = importlib.import_module("minisbert.adapters.keybert").Embedder(model)
    llm = Echo()
    extractor = keybert.KeyBERT(embedder, llm=keybert.KeyLLM(llm))
    documents, words = extractor.extract_embeddings(texts)
    assert np.array_equal(documents, model.encode(texts))
    found = extractor.extract_keywords(texts, threshold=0.9999, doc_embeddings=documents, word_embeddings=words)
    assert found[0] == found[1]
    assert all(keywords[-1] == "said" for keywords in found)
    assert sorted(llm.asked) == sorted(set(texts))


@pytest.mark.downstream
def test_bertopic_clusters_and_finds_topics_by_the_model(
    folder: Path, model: SentenceTransformer, tmp_path: Path
) -> None:
    bertopic = pytest.importorskip("bertopic")
    from bertopic.dimensionality import BaseDimensionalityReduction
    from bertopic.representation import KeyBERTInspired
    from sklearn.cluster import KMeans

    embedder = importlib.import_module("minisbert.adapters.bertopic").Embedder(model)
    texts = [f"{text} {number}" for number in range(6) for text in ("the cat sat on the mat", "the red sea is wide")]
    parts = {
        "umap_model": BaseDimensionalityReduction(),
        "hdbscan_model": KMeans(n_clusters=2, random_state=0, n_init=1),
        "representation_model": KeyBERTInspired(),
    }
    topics = bertopic.BERTopic(embedding_model=embedder, **parts)
    assigned, _ = topics.fit_transform(texts)
    assert len(set(assigned[::2])) == len(set(assigned[1::2])) == 1
    assert topics.embedding_model is embedder
    assert np.array_equal(embedder.embed_documents(texts), model.encode(texts))
    assert np.array_equal(embedder.embed_words(["cat"]), model.encode(["cat"]))
    number, score = topics.find_topics("the cat sat on the mat", top_n=1)
    assert number == [assigned[0]]
    topics.save(tmp_path / "topics", serialization="safetensors", save_ctfidf=True)
    again = bertopic.BERTopic.load(tmp_path / "topics", embedding_model=embedder)
    assert again.embedding_model is embedder
    assert again.find_topics("the cat sat on the mat", top_n=1)[1] == pytest.approx(score, abs=1e-5)
    topics.embedding_model = type(embedder)(folder, device="cpu")
    topics.save(tmp_path / "pickled", serialization="pickle")
    pickled = bertopic.BERTopic.load(tmp_path / "pickled")
    assert pickled.find_topics("the cat sat on the mat", top_n=1)[1] == pytest.approx(score, abs=1e-5)
