"""The modules of a model, with the reference's constructors: `models.Transformer("name")`, `models.Pooling(384)`."""

from .module import InputModule, Module
from .parts import Dense, Dropout, LayerNorm, Normalize, Pooling, WeightedLayerPooling
from .transformer import Transformer

__all__ = [
    "Dense",
    "Dropout",
    "InputModule",
    "LayerNorm",
    "Module",
    "Normalize",
    "Pooling",
    "Transformer",
    "WeightedLayerPooling",
]
