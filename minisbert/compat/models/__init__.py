"""The modules of a model, with the reference's constructors: `models.Transformer("name")`, `models.Pooling(384)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..finder import names_of
from .module import InputModule, Module
from .parts import Dense, Dropout, LayerNorm, Normalize, Pooling, WeightedLayerPooling
from .static import StaticEmbedding
from .transformer import Transformer

__all__ = [
    "Dense",
    "Dropout",
    "InputModule",
    "LayerNorm",
    "Module",
    "Normalize",
    "Pooling",
    "StaticEmbedding",
    "Transformer",
    "WeightedLayerPooling",
]

if not TYPE_CHECKING:  # which would then believe that every name is there
    __getattr__ = names_of(__name__)
