"""The forms in which a sentence-transformers model stands on disk: every one is read, one is written.

Versions 2 to 5 of the reference write one dialect, version 6 another. The older is readable by every version and by
the other tools that load such models, so it is the one written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ModelError

# ---- modules.json -------------------------------------------------------------------------------------------------
_OLD = "sentence_transformers.models"
_BASE = "sentence_transformers.base.modules"
_DENSE = "sentence_transformers.sentence_transformer.modules"
WRITTEN_TYPES: Mapping[str, str] = {
    kind: f"{_OLD}.{kind}" for kind in ("Transformer", "Pooling", "Normalize", "Dense", "LayerNorm", "Dropout")
}
# Every accepted `type` of modules.json. The list is closed: no name found in a file is ever imported.
MODULE_TYPES: Mapping[str, str] = {
    **{name: kind for kind, name in WRITTEN_TYPES.items()},
    **{f"{_OLD}.{kind}.{kind}": kind for kind in WRITTEN_TYPES},
    f"{_BASE}.transformer.Transformer": "Transformer",
    f"{_BASE}.normalize.Normalize": "Normalize",
    f"{_BASE}.dense.Dense": "Dense",
    f"{_DENSE}.transformer.Transformer": "Transformer",
    f"{_DENSE}.pooling.Pooling": "Pooling",
    f"{_DENSE}.normalize.Normalize": "Normalize",
    f"{_DENSE}.dense.Dense": "Dense",
    f"{_DENSE}.layer_norm.LayerNorm": "LayerNorm",
    f"{_DENSE}.dropout.Dropout": "Dropout",
}


def module_kind(type_name: Any) -> str:
    """Our name of a module type.

    Raises:
        ModelError: minisbert has no such module.
    """
    if not isinstance(type_name, str) or type_name not in MODULE_TYPES:
        raise ModelError(
            f"modules.json: got module type {type_name!r}; expected one of {', '.join(WRITTEN_TYPES)} "
            f"(of sentence_transformers.models): minisbert runs no code from a model folder"
        )
    return MODULE_TYPES[type_name]


# ---- sentence_bert_config.json ------------------------------------------------------------------------------------
TRANSFORMER_CONFIGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)

# ---- 1_Pooling/config.json ----------------------------------------------------------------------------------------
# The old boolean keys in the order in which the reference concatenates them, and the mode each stands for.
POOLING_KEYS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_WRITTEN_POOLING_KEYS = (
    "pooling_mode_cls_token",
    "pooling_mode_mean_tokens",
    "pooling_mode_max_tokens",
    "pooling_mode_mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens",
    "pooling_mode_lasttoken",
)


def read_pooling(config: Mapping[str, Any]) -> tuple[int, tuple[str, ...], bool]:
    """Embedding dimension, modes and `include_prompt` of a pooling configuration of either dialect.

    Raises:
        ModelError: the dimension is missing, or a value is of the wrong kind.
    """
    dimension = config.get("embedding_dimension", config.get("word_embedding_dimension"))
    if not isinstance(dimension, int):
        raise ModelError(f"pooling config.json: got {dimension!r} for word_embedding_dimension; expected a number")
    mode = config.get("pooling_mode")
    if mode is None:
        modes = tuple(name for key, name in POOLING_KEYS.items() if config.get(key)) or ("mean",)
    else:
        modes = (mode,) if isinstance(mode, str) else tuple(mode)
    return dimension, modes, bool(config.get("include_prompt", True))


def write_pooling(dimension: int, modes: tuple[str, ...], *, include_prompt: bool) -> dict[str, Any]:
    """The configuration in the written dialect; the new form is used only for an order the old one cannot say."""
    config: dict[str, Any] = {"word_embedding_dimension": dimension}
    if modes == tuple(name for name in POOLING_KEYS.values() if name in modes):
        config.update({key: POOLING_KEYS[key] in modes for key in _WRITTEN_POOLING_KEYS})
    else:
        config["pooling_mode"] = list(modes)
    config["include_prompt"] = include_prompt
    return config


# ---- configurations that are written as they are needed by every version ---------------------------------------------
NORMALIZE_CONFIG: Mapping[str, Any] = {
    "module_input_name": "sentence_embedding",
    "module_output_name": "sentence_embedding",
}
DENSE_KEYS = ("in_features", "out_features", "bias", "activation_function")
# Readers warn when a model claims a newer version of the reference than theirs; this is the first whose format it is.
WRITTEN_VERSION = "4.0.1"
