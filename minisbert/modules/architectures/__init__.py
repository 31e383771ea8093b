"""The architectures that the native encoder computes: their configurations, and the names in their checkpoints."""

from .architecture import Architecture, EncoderConfig
from .table import (
    architecture_of,
    as_modules,
    canonical,
    checkpoint_names,
    current,
    encoder_config,
    is_native,
    known,
    number_of_layers,
    to_checkpoint,
)

__all__ = [
    "Architecture",
    "EncoderConfig",
    "architecture_of",
    "as_modules",
    "canonical",
    "checkpoint_names",
    "current",
    "encoder_config",
    "is_native",
    "known",
    "number_of_layers",
    "to_checkpoint",
]
