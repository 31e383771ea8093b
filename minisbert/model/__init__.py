"""The model: modules with settings, how it embeds texts, and its files."""

from .files import EmbeddingModel
from .pool import EncodingPool

__all__ = ["EmbeddingModel", "EncodingPool"]
