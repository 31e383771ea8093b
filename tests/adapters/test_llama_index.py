"""LlamaIndex: an embedding, an index with a retriever, and embeddings written down."""

from __future__ import annotations

import asyncio
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from minisbert import SentenceTransformer
from minisbert.errors import ConfigError

pytestmark = [pytest.mark.downstream, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("llama_index.core")

from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode

from minisbert.adapters.llama_index import MinisbertEmbedding


def test_embeddings_are_those_of_the_model(folder: Path, model: SentenceTransformer, texts: list[str]) -> None:
    for embedding in (MinisbertEmbedding(str(folder), device="cpu"), MinisbertEmbedding(model)):
        expected = model.encode_document(texts)
        assert np.array_equal(np.float32(embedding.get_text_embedding_batch(texts)), expected)
        assert np.array_equal(np.float32(embedding.get_text_embedding(texts[1])), model.encode_document(texts[1]))
        query = embedding.get_query_embedding(texts[0])
        assert np.array_equal(np.float32(query), model.encode_query(texts[0]))
        assert type(query[0]) is float


def test_asynchronous_calls(model: SentenceTransformer, texts: list[str]) -> None:
    embedding = MinisbertEmbedding(model, embed_batch_size=2)
    assert asyncio.run(embedding.aget_text_embedding_batch(texts)) == embedding.get_text_embedding_batch(texts)
    assert asyncio.run(embedding.aget_query_embedding(texts[0])) == embedding.get_query_embedding(texts[0])
    assert asyncio.run(embedding.aget_text_embedding(texts[0])) == embedding.get_text_embedding(texts[0])


def test_a_retriever_ranks_as_the_model_does(model: SentenceTransformer, texts: list[str]) -> None:
    nodes = [TextNode(text=text) for text in texts]
    index = VectorStoreIndex(nodes, embed_model=MinisbertEmbedding(model))
    found = index.as_retriever(similarity_top_k=len(texts)).retrieve("a cat")
    scores = model.similarity(model.encode_query(["a cat"]), model.encode_document(texts))[0]
    assert [one.text for one in found] == [texts[row] for row in scores.argsort(descending=True)]
    assert [one.score for one in found] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-5)


def test_it_is_written_down_by_name(folder: Path, model: SentenceTransformer, texts: list[str]) -> None:
    embedding = MinisbertEmbedding(folder, device="cpu", truncate_dim=5, query_prompt="q: ", num_workers=2)
    data = embedding.to_dict()
    assert data["class_name"] == "MinisbertEmbedding"
    assert data["model_name"] == str(folder)
    for again in (MinisbertEmbedding.from_dict(data), pickle.loads(pickle.dumps(embedding))):
        assert again.to_dict() == data
        assert again.get_query_embedding(texts[0]) == embedding.get_query_embedding(texts[0])
    loaded = MinisbertEmbedding(model)
    copied = pickle.loads(pickle.dumps(loaded))
    assert copied.get_query_embedding(texts[0]) == loaded.get_query_embedding(texts[0])
    with pytest.raises(ConfigError, match="which was a loaded model; expected a name or folder: save that model"):
        MinisbertEmbedding.from_dict(loaded.to_dict())


def test_a_cache_of_another_model_is_not_used(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "model"
    shutil.copytree(folder, place)
    node = TextNode(text="a cat", id_="0")
    first = MinisbertEmbedding(place, device="cpu")
    pipeline = IngestionPipeline(transformations=[first])
    before = pipeline.run(nodes=[node])[0].embedding
    model = SentenceTransformer(place, device="cpu")
    next(model.parameters()).data.mul_(-1)
    model.save_pretrained(place)
    pipeline.transformations = [MinisbertEmbedding(place, device="cpu")]
    after = pipeline.run(nodes=[node])[0].embedding
    assert np.array_equal(np.float32(after), model.encode_document("a cat"))
    assert not np.allclose(before, after, atol=1e-3)
    changed = MinisbertEmbedding(model)
    name = changed.model_name
    next(model.parameters()).data.mul_(-1)
    assert MinisbertEmbedding(model).model_name != name


def test_wrong_arguments(model: SentenceTransformer) -> None:
    with pytest.raises(ConfigError, match="got model=None and model_name=None; expected one of them"):
        MinisbertEmbedding()
    with pytest.raises(ConfigError, match="got device='cpu' with a loaded model"):
        MinisbertEmbedding(model, device="cpu")
    with pytest.raises(TypeError, match="normalise"):
        MinisbertEmbedding(model, normalise=True)  # type: ignore[call-arg]
