"""The modules a model is made of."""

from typing import TYPE_CHECKING, Any

from .pooling import Pooling, WeightedLayerPooling
from .sentence import Dense, Dropout, LayerNorm, Normalize
from .transformer import Transformer

if TYPE_CHECKING:
    from .static import StaticEmbedding

__all__ = [
    "Dense",
    "Dropout",
    "LayerNorm",
    "Normalize",
    "Pooling",
    "StaticEmbedding",
    "Transformer",
    "WeightedLayerPooling",
]


def __getattr__(name: str) -> Any:
    """Import the module of static models when it is first used."""
    if name != "StaticEmbedding":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .static import StaticEmbedding

    return StaticEmbedding
