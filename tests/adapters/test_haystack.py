"""Haystack: components, pipelines of them, and pipelines written down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minisbert import SentenceTransformer
from minisbert.errors import ConfigError, InputTypeError

pytestmark = [pytest.mark.downstream, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("haystack")

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore

from minisbert.adapters.haystack import MinisbertDocumentEmbedder, MinisbertTextEmbedder

TRUSTED = ["minisbert.adapters.haystack"]


def test_embeddings_are_those_of_the_model(folder: Path, model: SentenceTransformer, texts: list[str]) -> None:
    for given in (model, str(folder)):
        embedder = MinisbertDocumentEmbedder(given)
        embedder.warm_up()
        documents = [Document(content=text) for text in texts]
        found = embedder.run(documents=documents)["documents"]
        assert np.array_equal(np.float32([one.embedding for one in found]), model.encode_document(texts))
        assert all(one.embedding is None for one in documents)
        assert [one.id for one in found] == [one.id for one in documents]
        query = MinisbertTextEmbedder(given).run(text=texts[0])["embedding"]
        assert np.array_equal(np.float32(query), model.encode_query(texts[0]))
        assert type(query[0]) is float


def test_fields_of_meta_are_embedded_before_the_content(model: SentenceTransformer) -> None:
    embedder = MinisbertDocumentEmbedder(model, meta_fields_to_embed=["title", "year"], embedding_separator=" | ")
    documents = [
        Document(content="a cat", meta={"title": "Cats", "year": 2020, "other": "x"}),
        Document(content="a dog", meta={"year": None}),
        Document(content=None, meta={"title": "Rain"}),
    ]
    found = [one.embedding for one in embedder.run(documents)["documents"]]
    expected = model.encode_document(["Cats | 2020 | a cat", "a dog", "Rain | "])
    assert np.array_equal(np.float32(found), expected)
    assert embedder.run([]) == {"documents": []}


def test_a_pipeline_that_was_written_down_finds_what_the_model_finds(
    folder: Path, model: SentenceTransformer, texts: list[str]
) -> None:
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    indexing = Pipeline()
    indexing.add_component(
        "embedder", MinisbertDocumentEmbedder(str(folder), device="cpu", meta_fields_to_embed=["title"])
    )
    indexing.add_component("writer", DocumentWriter(store))
    indexing.connect("embedder.documents", "writer.documents")
    again = Pipeline.loads(indexing.dumps(), allowed_modules=TRUSTED)
    assert again.to_dict() == indexing.to_dict()
    indexing.run({"embedder": {"documents": [Document(content=text) for text in texts]}})

    asking = Pipeline()
    asking.add_component("embedder", MinisbertTextEmbedder(str(folder), device="cpu"))
    asking.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=len(texts)))
    asking.connect("embedder.embedding", "retriever.query_embedding")
    found = asking.run({"embedder": {"text": "a cat"}})["retriever"]["documents"]
    scores = model.similarity(model.encode_query(["a cat"]), model.encode_document(texts))[0]
    assert [one.content for one in found] == [texts[row] for row in scores.argsort(descending=True)]
    assert [one.score for one in found] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-5)


def test_components_are_written_down_by_name(folder: Path, model: SentenceTransformer) -> None:
    for kind in (MinisbertTextEmbedder, MinisbertDocumentEmbedder):
        given = kind(folder, truncate_dim=4, query_prompt="q: ", device="cpu")
        again = kind.from_dict(given.to_dict())
        assert again.to_dict() == given.to_dict()
        assert again.to_dict()["init_parameters"]["model"] == str(folder)
        with pytest.raises(ConfigError, match="save the model, and pass the folder"):
            kind(model).to_dict()


def test_wrong_input(model: SentenceTransformer) -> None:
    with pytest.raises(InputTypeError, match="embed documents with MinisbertDocumentEmbedder"):
        MinisbertTextEmbedder(model).run(text=[Document(content="a")])
    with pytest.raises(InputTypeError, match="embed a query with MinisbertTextEmbedder"):
        MinisbertDocumentEmbedder(model).run(documents="a cat")
    with pytest.raises(ConfigError, match="got meta_fields_to_embed='title'; expected names of fields"):
        MinisbertDocumentEmbedder(model, meta_fields_to_embed="title")
    with pytest.raises(TypeError, match="sufix"):
        MinisbertTextEmbedder(model, sufix="x")
