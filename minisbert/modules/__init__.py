"""The modules a model is made of."""

from .pooling import Pooling, WeightedLayerPooling
from .sentence import Dense, Dropout, LayerNorm, Normalize
from .transformer import Transformer

__all__ = ["Dense", "Dropout", "LayerNorm", "Normalize", "Pooling", "Transformer", "WeightedLayerPooling"]
