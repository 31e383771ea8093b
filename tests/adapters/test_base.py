"""A model or its name, with options: what adapters share."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minisbert import SentenceTransformer
from minisbert.adapters._base import PlainEncoder, RetrievalEncoder
from minisbert.errors import ConfigError, InputTypeError, ModelError


def test_a_name_and_a_model_embed_alike(folder: Path, model: SentenceTransformer, texts: list[str]) -> None:
    for given in (RetrievalEncoder(folder, device="cpu"), RetrievalEncoder(model)):
        assert np.array_equal(given.encode_queries(texts), model.encode_query(texts))
        assert np.array_equal(given.encode_documents(tuple(texts)), model.encode_document(texts))
    assert np.array_equal(PlainEncoder(model).encode(np.array(texts)), model.encode(texts))
    assert not np.allclose(model.encode_query(texts), model.encode_document(texts), atol=1e-3)


def test_options_are_those_of_encode(model: SentenceTransformer, texts: list[str]) -> None:
    given = RetrievalEncoder(model, normalize_embeddings=True, truncate_dim=5, batch_size=1, query_prompt="ask: ")
    expected = model.encode(texts, prompt="ask: ", normalize_embeddings=True, truncate_dim=5, batch_size=1)
    assert np.array_equal(given.encode_queries(texts), expected)
    assert given.dimension == 5
    plain = PlainEncoder(model, prompt="", truncate_dim=7)
    assert np.array_equal(plain.encode(texts), model.encode(texts, prompt="", truncate_dim=7))
    assert PlainEncoder(model).dimension == model.get_sentence_embedding_dimension()


def test_models_of_one_name_are_one_model(folder: Path) -> None:
    first, second = PlainEncoder(folder, device="cpu"), RetrievalEncoder(str(folder), device="cpu")
    assert first.load() is second.load()
    again = pickle.loads(pickle.dumps(first))
    assert len(pickle.dumps(first)) < 2_000
    assert again.load() is first.load()


def test_settings_make_the_same_again(folder: Path) -> None:
    given = RetrievalEncoder(folder, device="cpu", truncate_dim=3, document_prompt="d: ")
    assert RetrievalEncoder(**given.settings()).settings() == given.settings()
    assert repr(given) == f"RetrievalEncoder({str(folder)!r}, device='cpu', truncate_dim=3, document_prompt='d: ')"


def test_wrong_arguments(model: SentenceTransformer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got model=3; expected a minisbert.SentenceTransformer, or the name"):
        PlainEncoder(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="got device='cpu' with a loaded model; expected options of loading with"):
        PlainEncoder(model, device="cpu")
    with pytest.raises(ConfigError, match="got a loaded SentenceTransformer to write down; expected its name"):
        PlainEncoder(model).settings()
    with pytest.raises(InputTypeError, match="got one text, 'a cat'; expected several: put it in a list"):
        PlainEncoder(model).encode("a cat")
    with pytest.raises(ModelError, match="expected a model folder"):
        PlainEncoder(tmp_path / "none").load()


def test_no_adapter_is_imported_without_being_asked_for() -> None:
    names = "langchain_core llama_index haystack chromadb sklearn mteb bertopic keybert spacy txtai datasets".split()
    check = f"import sys, minisbert; minisbert.SentenceTransformer; assert not set({names}) & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


@pytest.mark.parametrize(
    ("adapter", "module", "package"),
    [
        ("bertopic", "bertopic", "bertopic"),
        ("chroma", "chromadb", "chromadb"),
        ("datasets", "datasets", "datasets"),
        ("haystack", "haystack", "haystack-ai"),
        ("keybert", "keybert", "keybert"),
        ("langchain", "langchain_core", "langchain-core"),
        ("llama_index", "llama_index", "llama-index-core"),
        ("mteb", "mteb", "mteb"),
        ("sklearn", "sklearn", "scikit-learn"),
        ("spacy", "spacy", "spacy"),
        ("txtai", "txtai", "txtai"),
    ],
)
def test_a_package_that_is_not_installed(
    adapter: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, f"minisbert.adapters.{adapter}", raising=False)
    with pytest.raises(ModuleNotFoundError, match=f"got no module '{module}.*: pip install {package}$"):
        importlib.import_module(f"minisbert.adapters.{adapter}")
