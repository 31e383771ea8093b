"""A model as vectors of txtai: a function for its method "external", or a method of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ConfigError, nearest
from ..model import EmbeddingModel
from ..model.embedding_model import DType
from ._base import Embeddings, PlainEncoder, RetrievalEncoder, imported_from

with imported_from("txtai"):
    from txtai.vectors import Vectors

_OPTIONS = (
    *("device", "dtype", "revision", "batch_size"),
    *("normalize_embeddings", "truncate_dim", "query_prompt", "document_prompt"),
)


def transform(
    model: EmbeddingModel | str | Path,
    *,
    device: str | None = None,
    dtype: DType | None = None,
    revision: str | None = None,
    batch_size: int | None = None,
    truncate_dim: int | None = None,
    prompt: str | None = None,
) -> Callable[[list[str]], Embeddings]:
    """Return a function for `Embeddings(method="external", transform=transform(model))`.

    txtai does not tell such a function queries from documents: for a model with prompts for them use
    `MinisbertVectors`, or txtai's `instructions`. It does not write the function down either: give it to an index that
    is loaded again.

    Args:
        model: a loaded model, or the name or folder of one, as of `SentenceTransformer`.
        device: where a model that is named runs.
        dtype: of the weights of a model that is named.
        revision: branch, tag or commit on the Hub.
        batch_size: most texts in one forward pass.
        truncate_dim: slice embeddings up to this dimension. txtai normalizes them afterwards.
        prompt: put before each text; by default the model's default prompt.

    Raises:
        ConfigError: this is no model, or options of loading are given with a loaded one.
    """
    encoder = PlainEncoder(
        model,
        device=device,
        dtype=dtype,
        revision=revision,
        batch_size=batch_size,
        truncate_dim=truncate_dim,
        prompt=prompt,
    )

    def embed(texts: list[str]) -> Embeddings:  # a function: anything else that is callable txtai calls for one
        return encoder.encode(texts)

    return embed


class MinisbertVectors(Vectors):
    """Vectors of txtai: `Embeddings(path="all-MiniLM-L6-v2", method="minisbert.adapters.txtai.MinisbertVectors")`.

    Documents are embedded by `encode_document`, queries by `encode_query`. An index is written down with `path` and
    `method`, and so loads with them. `vectors={...}` of txtai takes the options of an adapter: device, dtype, revision,
    batch_size, normalize_embeddings, truncate_dim, query_prompt, document_prompt.

    Raises:
        ConfigError: there is no `path`, or `vectors` has another option.
    """

    def loadmodel(self, path: str | Path | None) -> RetrievalEncoder:
        """Load the model called `path`, as txtai asks for it."""
        if path is None:
            raise ConfigError("got no path; expected the name or folder of a model: Embeddings(path=..., method=...)")
        options: dict[str, Any] = self.config.get("vectors") or {}
        for name in options:
            if name not in _OPTIONS:
                near = ", ".join(_OPTIONS) if not name else nearest(name, _OPTIONS, otherwise=_OPTIONS)
                raise ConfigError(f"got {name!r} in vectors; expected options such as {near}")
        cpu = {} if self.config.get("gpu", True) else {"device": "cpu"}
        encoder = RetrievalEncoder(path, **{**cpu, **options})
        encoder.load()
        return encoder

    def encode(self, data: list[str], category: str | None = None) -> Embeddings:
        """Embed texts of txtai's category "query" or "data": float32, (texts, dim)."""
        return self.model.encode_queries(data) if category == "query" else self.model.encode_documents(data)
