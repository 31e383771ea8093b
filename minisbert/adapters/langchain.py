"""A model as embeddings of LangChain."""

from __future__ import annotations

from dataclasses import dataclass

from ._base import RetrievalEncoder, imported_from

with imported_from("langchain-core"):
    from langchain_core.embeddings import Embeddings


@dataclass(eq=False, repr=False)
class MinisbertEmbeddings(RetrievalEncoder, Embeddings):
    """Embeddings of LangChain: `MinisbertEmbeddings("all-MiniLM-L6-v2")`.

    The asynchronous methods are LangChain's own, which embed in a thread.

    Args:
        model: a loaded model, or the name or folder of one, as of `SentenceTransformer`.
        device: where a model that is named runs.
        dtype: of the weights of a model that is named.
        revision: branch, tag or commit on the Hub.
        batch_size: most texts in one forward pass.
        normalize_embeddings: scale each embedding to length 1.
        truncate_dim: slice embeddings up to this dimension.
        query_prompt: put before each query; by default the model's own prompt for queries.
        document_prompt: put before each document; by default the model's own prompt for documents.

    Raises:
        ConfigError: this is no model, or options of loading are given with a loaded one.
    """

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents as `encode_document` does."""
        return self.encode_documents(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        """Embed a query as `encode_query` does."""
        return self.encode_queries([text])[0].tolist()
