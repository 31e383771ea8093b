"""Packages written for sentence-transformers, each used with minisbert in its place.

    python tests/downstream/packages.py NAME MODEL

Use the package NAME through `compat.install()` with the model in the folder MODEL, and print what came out as JSON:
embeddings by name, or other results. It runs in the environment that `environments.py` makes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

TEXTS = ("a cat sat on the mat", "the red sea is wide", "dogs run in the park")
LABELS = (0, 1, 0)


def langchain_huggingface(model: str) -> dict[str, Any]:
    """LangChain's embeddings."""
    from langchain_huggingface import HuggingFaceEmbeddings

    embeddings = HuggingFaceEmbeddings(model_name=model, model_kwargs={"device": "cpu"})
    return {"documents": embeddings.embed_documents(list(TEXTS)), "query": embeddings.embed_query(TEXTS[0])}


def llama_index(model: str) -> dict[str, Any]:
    """LlamaIndex's embedding."""
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    embedding = HuggingFaceEmbedding(model_name=model, device="cpu", normalize=False)
    documents = embedding.get_text_embedding_batch(list(TEXTS))
    return {"documents": documents, "query": embedding.get_query_embedding(TEXTS[0])}


def haystack(model: str) -> dict[str, Any]:
    """Haystack's embedders of texts and documents."""
    from haystack import Document
    from haystack.utils import ComponentDevice
    from haystack_integrations.components.embedders.sentence_transformers import (
        SentenceTransformersDocumentEmbedder,
        SentenceTransformersTextEmbedder,
    )

    device = ComponentDevice.from_str("cpu")
    texts = SentenceTransformersTextEmbedder(model=model, device=device, progress_bar=False)
    documents = SentenceTransformersDocumentEmbedder(model=model, device=device, progress_bar=False)
    for embedder in (texts, documents):
        embedder.warm_up()
    found = documents.run(documents=[Document(content=text) for text in TEXTS])["documents"]
    return {"documents": [document.embedding for document in found], "query": texts.run(text=TEXTS[0])["embedding"]}


def chromadb(model: str) -> dict[str, Any]:
    """Chroma's embedding function, in a collection."""
    import chromadb as chroma
    from chromadb.utils.embedding_functions import SentenceTransformerEmbeddingFunction

    function = SentenceTransformerEmbeddingFunction(model_name=model, device="cpu")
    collection = chroma.EphemeralClient().create_collection("texts", embedding_function=function)
    collection.add(ids=["0", "1", "2"], documents=list(TEXTS))
    nearest = collection.query(query_texts=[TEXTS[1]], n_results=1)["ids"]
    kept = collection.get(ids=["0", "1", "2"], include=["embeddings"])["embeddings"]
    return {"documents": [list(map(float, row)) for row in kept], "nearest": nearest}


def keybert(model: str) -> dict[str, Any]:
    """KeyBERT's key phrases."""
    from keybert import KeyBERT
    from sentence_transformers import SentenceTransformer

    found = KeyBERT(SentenceTransformer(model, device="cpu")).extract_keywords(TEXTS[0], top_n=2)
    return {"words": [word for word, _ in found], "embedder": type(KeyBERT(model).model).__name__}


def bertopic(model: str) -> dict[str, Any]:
    """BERTopic's topics, from embeddings as they are."""
    from bertopic import BERTopic
    from bertopic.dimensionality import BaseDimensionalityReduction
    from sentence_transformers import SentenceTransformer
    from sklearn.cluster import KMeans

    body = SentenceTransformer(model, device="cpu")
    clusters = KMeans(n_clusters=2, random_state=0, n_init=1)
    topics = BERTopic(embedding_model=body, umap_model=BaseDimensionalityReduction(), hdbscan_model=clusters)
    documents = [f"{text} {number}" for number in range(4) for text in TEXTS]
    assigned, _ = topics.fit_transform(documents)
    return {"documents": topics.embedding_model.embed(list(TEXTS)).tolist(), "topics": len(set(assigned))}


def txtai(model: str) -> dict[str, Any]:
    """txtai's index."""
    from txtai import Embeddings

    index = Embeddings(path=model, method="sentence-transformers", gpu=False)
    index.index(list(enumerate(TEXTS)))
    return {"documents": index.batchtransform(list(TEXTS)).tolist(), "nearest": index.search(TEXTS[1], 1)[0][0]}


def setfit(model: str) -> dict[str, Any]:
    """SetFit's body, with a head trained on it."""
    from sentence_transformers import SentenceTransformer
    from setfit import SetFitModel

    classifier = SetFitModel.from_pretrained(model, device="cpu")
    assert isinstance(classifier.model_body, SentenceTransformer)
    classifier.fit(list(TEXTS), list(LABELS), num_epochs=1)
    predicted = [int(label) for label in classifier.predict(list(TEXTS))]
    return {"documents": classifier.model_body.encode(list(TEXTS)).tolist(), "predicted": predicted}


PACKAGES: dict[str, Callable[[str], dict[str, Any]]] = {
    "langchain-huggingface": langchain_huggingface,
    "llama-index-embeddings-huggingface": llama_index,
    "sentence-transformers-haystack": haystack,
    "chromadb": chromadb,
    "keybert": keybert,
    "bertopic": bertopic,
    "txtai": txtai,
    "setfit": setfit,
}


def main(name: str, model: str) -> None:
    """Use a package, and print its result."""
    from minisbert import compat

    compat.install()
    result = PACKAGES[name](model)
    import sentence_transformers

    result["home"] = sentence_transformers.SentenceTransformer.__module__
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
