"""A model as an embedding of LlamaIndex."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from ..errors import ConfigError, shown
from ..model import EmbeddingModel
from ..model.embedding_model import DType
from ._base import RetrievalEncoder, imported_from

with imported_from("llama-index-core"):
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.callbacks import CallbackManager

_LOADED = "loaded-model-"  # begins the name of a model that has none


class MinisbertEmbedding(BaseEmbedding):
    """An embedding of LlamaIndex: `MinisbertEmbedding("all-MiniLM-L6-v2")`.

    It is written down with the name of its model. What LlamaIndex keeps by it, as the cache of an ingestion pipeline,
    depends on the weights too, by a digest of a folder or of a loaded model.

    Args:
        model: a loaded model, or the name or folder of one, as of `SentenceTransformer`.
        model_name: the name or folder again, as LlamaIndex writes it down.
        device: where a model that is named runs.
        dtype: of the weights of a model that is named.
        revision: branch, tag or commit on the Hub.
        batch_size: most texts in one forward pass.
        normalize_embeddings: scale each embedding to length 1.
        truncate_dim: slice embeddings up to this dimension.
        query_prompt: put before each query; by default the model's own prompt for queries.
        document_prompt: put before each text; by default the model's own prompt for documents.
        embed_batch_size: most texts that LlamaIndex hands over at once, up to 2048.
        num_workers: of LlamaIndex's asynchronous calls.
        embeddings_cache: a key-value store of LlamaIndex. Its keys are texts alone: keep one for each model.
        callback_manager: of LlamaIndex.
        rate_limiter: of LlamaIndex.
        content: the digest, as LlamaIndex writes it down; it is taken again.

    Raises:
        ConfigError: this is no model, or options of loading are given with a loaded one.
    """

    device: str | None = None
    dtype: str | None = None
    revision: str | None = None
    batch_size: int | None = None
    normalize_embeddings: bool = False
    truncate_dim: int | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    content: str = ""
    _encoder: RetrievalEncoder = PrivateAttr()

    def __init__(
        self,
        model: EmbeddingModel | str | Path | None = None,
        *,
        model_name: str | None = None,
        device: str | None = None,
        dtype: DType | None = None,
        revision: str | None = None,
        batch_size: int | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        embed_batch_size: int = 2048,
        num_workers: int | None = None,
        embeddings_cache: Any = None,
        callback_manager: CallbackManager | None = None,
        rate_limiter: Any = None,
        content: str = "",
    ) -> None:
        if (model is None) == (model_name is None):
            raise ConfigError(
                f"got model={shown(model)} and model_name={shown(model_name)}; expected one of them: pass the model"
            )
        given = model_name if model is None else model
        if isinstance(given, str) and given.startswith(_LOADED):
            raise ConfigError(
                f"got {given!r}, which was a loaded model; expected a name or folder: save that model, and pass its "
                f"folder"
            )
        options: dict[str, Any] = {
            "device": device,
            "dtype": dtype,
            "revision": revision,
            "batch_size": batch_size,
            "normalize_embeddings": normalize_embeddings,
            "truncate_dim": truncate_dim,
            "query_prompt": query_prompt,
            "document_prompt": document_prompt,
        }
        encoder = RetrievalEncoder(given, **options)  # type: ignore[arg-type]  # None is refused there
        digest = encoder.content
        super().__init__(
            model_name=f"{_LOADED}{digest}" if isinstance(given, EmbeddingModel) else str(given),
            embed_batch_size=embed_batch_size,
            num_workers=num_workers,
            embeddings_cache=embeddings_cache,
            callback_manager=callback_manager or CallbackManager([]),
            rate_limiter=rate_limiter,
            content=digest,
            **options,
        )
        self._encoder = encoder

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex writes down."""
        return "MinisbertEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._encoder.encode_queries([query])[0].tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._encoder.encode_documents([text])[0].tolist()

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._encoder.encode_documents(texts).tolist()

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)
