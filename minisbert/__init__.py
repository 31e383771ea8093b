"""minisbert: train, run, evaluate and save sentence-embedding models in plain PyTorch, without padding.

    from minisbert import SentenceTransformer

    model = SentenceTransformer("all-MiniLM-L6-v2")
    embeddings = model.encode(["a text", "another text"])   # (2, 384) float32
    model.similarity(embeddings, embeddings)                # (2, 2)

Names are imported when they are first used: `import minisbert` alone loads nothing else.
"""

from __future__ import annotations

import gc
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from . import card, compat, datasets, distributed, evaluation, losses, modules, readers, report, util
    from .data.rows import InputExample
    from .embedder import Embedder
    from .model.pool import EncodingPool
    from .modules.lora import LoraConfig
    from .sentence_transformer import SentenceTransformer
    from .training.config import TrainingConfig
    from .training.history import TrainingHistory
    from .training.trainer import Trainer

__all__ = [
    "Embedder",
    "EncodingPool",
    "InputExample",
    "LoraConfig",
    "SentenceTransformer",
    "Trainer",
    "TrainingConfig",
    "TrainingHistory",
    "card",
    "compat",
    "datasets",
    "distributed",
    "evaluation",
    "losses",
    "modules",
    "readers",
    "recipes",
    "report",
    "util",
]

_HOMES = {
    "Embedder": "embedder",
    "EncodingPool": "model.pool",
    "InputExample": "data.rows",
    "LoraConfig": "modules.lora",
    "SentenceTransformer": "sentence_transformer",
    "Trainer": "training.trainer",
    "TrainingConfig": "training.config",
    "TrainingHistory": "training.history",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    collects = gc.isenabled()
    gc.disable()  # imported objects stay; one search for garbage among them and those of torch takes 80 ms
    try:
        module = import_module(f".{_HOMES.get(name, name)}", __name__)
    finally:
        if collects:
            gc.enable()
    return getattr(module, name) if name in _HOMES else module


def __dir__() -> list[str]:
    return sorted((*__all__, "__version__"))
