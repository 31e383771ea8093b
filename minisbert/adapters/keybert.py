"""A model as an embedder of KeyBERT.

KeyBERT knows models by the name of their type. It does not know this one and would load another in its place, so it has
to be told: `KeyBERT(Embedder(model))`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keybert.backend import BaseEmbedder

from ..model import EmbeddingModel


class Embedder(BaseEmbedder):
    """An embedder of KeyBERT.

    Args:
        model: embeds documents, words and phrases.
    """

    def __init__(self, model: EmbeddingModel) -> None:
        super().__init__(embedding_model=model)

    def embed(self, documents: Sequence[str], verbose: bool = False) -> Any:
        """Embed documents, words or phrases: float32, (texts, dim). `verbose` shows a progress bar."""
        return self.embedding_model.encode(list(documents), show_progress_bar=verbose)
