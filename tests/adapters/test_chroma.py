"""Chroma: collections, queries, the space, and collections that are opened again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minisbert import SentenceTransformer
from minisbert.errors import ConfigError

pytestmark = [pytest.mark.downstream, pytest.mark.filterwarnings("ignore")]
chromadb = pytest.importorskip("chromadb")

from minisbert.adapters.chroma import MinisbertEmbeddingFunction

IDS = ["0", "1", "2", "3"]


def ranking(model: SentenceTransformer, texts: list[str]) -> list[str]:
    scores = model.similarity(model.encode_query(["a cat"]), model.encode_document(texts))[0]
    return [IDS[row] for row in scores.argsort(descending=True)]


def test_a_collection_ranks_as_the_model_does(folder: Path, model: SentenceTransformer, texts: list[str]) -> None:
    client = chromadb.EphemeralClient()
    for name, given in {"by-name": str(folder), "by-model": model}.items():
        function = MinisbertEmbeddingFunction(given)
        collection = client.create_collection(name, embedding_function=function)
        collection.add(ids=IDS, documents=texts)
        kept = collection.get(ids=IDS, include=["embeddings"])["embeddings"]
        unit = model.encode_document(texts, normalize_embeddings=True)  # in the space "cosine" Chroma normalizes
        np.testing.assert_allclose(kept / np.linalg.norm(kept, axis=1, keepdims=True), unit, atol=1e-6)
        assert np.array_equal(np.stack(function(texts)), model.encode_document(texts))
        assert np.array_equal(function.embed_query(["a cat"])[0], model.encode_query("a cat"))
        found = collection.query(query_texts=["a cat"], n_results=4)
        assert found["ids"] == [ranking(model, texts)]


@pytest.mark.parametrize(("similarity", "space"), [("cosine", "cosine"), ("dot", "ip"), ("euclidean", "l2")])
def test_the_space_is_that_of_the_similarity(folder: Path, similarity: str, space: str, texts: list[str]) -> None:
    model = SentenceTransformer(folder, device="cpu", similarity_fn_name=similarity)
    collection = chromadb.EphemeralClient().create_collection(
        f"in-{space}", embedding_function=MinisbertEmbeddingFunction(model)
    )
    assert collection.configuration["hnsw"]["space"] == space
    collection.add(ids=IDS, documents=texts)
    assert collection.query(query_texts=["a cat"], n_results=4)["ids"] == [ranking(model, texts)]


def test_a_collection_is_opened_again_by_another_process(
    folder: Path, model: SentenceTransformer, texts: list[str], tmp_path: Path
) -> None:
    client = chromadb.PersistentClient(str(tmp_path))
    function = MinisbertEmbeddingFunction(folder, device="cpu", truncate_dim=8, query_prompt="")
    client.create_collection("kept", embedding_function=function).add(ids=IDS, documents=texts)
    script = f"""
import chromadb, minisbert.adapters.chroma
collection = chromadb.PersistentClient({str(tmp_path)!r}).get_collection("kept")
print(*collection.query(query_texts=["a cat"], n_results=4)["ids"][0])
"""
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    scores = model.similarity(
        model.encode(["a cat"], prompt="", truncate_dim=8), model.encode_document(texts, truncate_dim=8)
    )[0]
    assert found.stdout.split() == [IDS[row] for row in scores.argsort(descending=True)]


def test_the_configuration_is_checked(folder: Path, model: SentenceTransformer) -> None:
    function = MinisbertEmbeddingFunction(folder, normalize_embeddings=True)
    config = function.get_config()
    assert MinisbertEmbeddingFunction.build_from_config(config).get_config() == config
    function.validate_config_update(config, {**config, "model": "elsewhere", "device": "cpu"})
    with pytest.raises(ConfigError, match="got normalize_embeddings=False for a collection with True"):
        function.validate_config_update(config, {**config, "normalize_embeddings": False})
    wrong = {
        "got 'devise' in the configuration of a collection; expected options such as device": {"devise": "cpu"},
        "got batch_size='3' in the configuration of a collection; expected a whole number": {"batch_size": "3"},
        "got model=None in the configuration of a collection; expected a string": {"model": None},
    }
    for message, change in wrong.items():
        with pytest.raises(ConfigError, match=message):
            MinisbertEmbeddingFunction.build_from_config({**config, **change})
    with pytest.raises(ConfigError, match="without 'model'"):
        MinisbertEmbeddingFunction.build_from_config({})
    with pytest.raises(ConfigError, match="save the model, and pass the folder"):
        MinisbertEmbeddingFunction(model).get_config()
