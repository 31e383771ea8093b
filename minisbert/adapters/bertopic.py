"""A model as an embedder of BERTopic.

BERTopic knows models by the name of their type. It does not know this one and would load another in its place, so it
has to be told: `BERTopic(embedding_model=Embedder(model))`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bertopic.backend import BaseEmbedder

from ..model import EmbeddingModel


class Embedder(BaseEmbedder):
    """An embedder of BERTopic.

    Args:
        model: embeds documents and words.
    """

    def __init__(self, model: EmbeddingModel) -> None:
        super().__init__(embedding_model=model)

    def embed(self, documents: Sequence[str], verbose: bool = False) -> Any:
        """Embed documents or words: float32, (texts, dim). `verbose` shows a progress bar."""
        return self.embedding_model.encode(list(documents), show_progress_bar=verbose)
