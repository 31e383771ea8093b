"""The model: modules with settings, how it embeds texts, and its files."""

from .files import EmbeddingModel, repr_modules
from .pool import EncodingPool

__all__ = ["EmbeddingModel", "EncodingPool", "repr_modules"]
