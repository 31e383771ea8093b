"""LangChain: embeddings, a vector store and its retriever."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from minisbert import SentenceTransformer
from minisbert.errors import InputTypeError

pytestmark = [pytest.mark.downstream, pytest.mark.filterwarnings("ignore")]
langchain_core = pytest.importorskip("langchain_core")

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from minisbert.adapters.langchain import MinisbertEmbeddings


def test_embeddings_are_those_of_the_model(folder: Path, model: SentenceTransformer, texts: list[str]) -> None:
    for embeddings in (MinisbertEmbeddings(str(folder), device="cpu"), MinisbertEmbeddings(model)):
        assert isinstance(embeddings, Embeddings)
        documents, query = embeddings.embed_documents(texts), embeddings.embed_query(texts[0])
        assert np.array_equal(np.float32(documents), model.encode_document(texts))
        assert np.array_equal(np.float32(query), model.encode_query(texts[0]))
        assert type(documents) is type(documents[0]) is type(query) is list
        assert type(query[0]) is float
        assert embeddings.embed_documents([]) == []


def test_asynchronous_calls(model: SentenceTransformer, texts: list[str]) -> None:
    embeddings = MinisbertEmbeddings(model)

    async def both() -> tuple[list[list[float]], list[float]]:
        found = await asyncio.gather(embeddings.aembed_documents(texts), embeddings.aembed_query(texts[0]))
        return found[0], found[1]

    documents, query = asyncio.run(both())
    assert documents == embeddings.embed_documents(texts)
    assert query == embeddings.embed_query(texts[0])


def test_a_retriever_ranks_as_the_model_does(model: SentenceTransformer, texts: list[str]) -> None:
    store = InMemoryVectorStore.from_documents([Document(text) for text in texts], MinisbertEmbeddings(model))
    found = store.as_retriever(search_kwargs={"k": len(texts)}).invoke("a cat")
    scores = model.similarity(model.encode_query(["a cat"]), model.encode_document(texts))[0]
    assert [one.page_content for one in found] == [texts[row] for row in scores.argsort(descending=True)]


def test_one_text_for_several_is_refused(model: SentenceTransformer) -> None:
    with pytest.raises(InputTypeError, match="put it in a list"):
        MinisbertEmbeddings(model).embed_documents("a cat")  # type: ignore[arg-type]
