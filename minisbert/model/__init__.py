"""The model: modules with settings, how it embeds texts, and its files."""

from .embedding_model import EmbeddingModel
from .pool import EncodingPool

__all__ = ["EmbeddingModel", "EncodingPool"]
