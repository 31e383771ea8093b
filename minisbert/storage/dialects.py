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
# Each module and the file that defines it in version 6.
_DEFINED_IN: Mapping[str, str] = {
    "Transformer": f"{_BASE}.transformer",
    "Pooling": f"{_DENSE}.pooling",
    "Normalize": f"{_BASE}.normalize",
    "Dense": f"{_BASE}.dense",
    "LayerNorm": f"{_DENSE}.layer_norm",
    "Dropout": f"{_DENSE}.dropout",
}
WRITTEN_TYPES: Mapping[str, str] = {kind: f"{_OLD}.{kind}" for kind in _DEFINED_IN}
# Every accepted `type` of modules.json: all names by which version 6.2 can import the six modules, those of the older
# versions among them. The list is closed: no name found in a file is ever imported.
MODULE_TYPES: Mapping[str, str] = {
    **{name: kind for kind, name in WRITTEN_TYPES.items()},
    **{f"{_OLD}.{kind}.{kind}": kind for kind in _DEFINED_IN},
    **{f"{file}.{kind}": kind for kind, file in _DEFINED_IN.items()},
    f"{_DENSE}.normalize.Normalize": "Normalize",  # where versions 5.4 to 5.x define it
    **{f"{_DENSE}.{kind}": kind for kind in _DEFINED_IN},
    **{f"{_BASE}.{kind}": kind for kind, file in _DEFINED_IN.items() if file.startswith(_BASE)},
    **{
        f"sentence_transformers.{package}.{kind}": kind
        for package in ("cross_encoder.modules", "sparse_encoder.modules", "sparse_encoder.models")
        for kind in ("Transformer", "Dense")
    },
    **{file.replace(_DENSE, _OLD) + f".{kind}": kind for kind, file in _DEFINED_IN.items() if file.startswith(_DENSE)},
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
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
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
_MOST_MODES = 20
_DIMENSION_KEYS = ("embedding_dimension", "word_embedding_dimension")


def read_pooling(config: Mapping[str, Any]) -> tuple[int, tuple[str, ...], bool]:
    """Embedding dimension, modes and `include_prompt` of a pooling configuration of either dialect.

    Raises:
        ModelError: the dimension is missing, a value is of the wrong kind, or a key is unknown.
    """
    known = (*_DIMENSION_KEYS, *POOLING_KEYS, "pooling_mode", "include_prompt")
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise ModelError(f"pooling config.json: got key {unknown[0]!r}; expected some of {', '.join(known)}")
    dimension: Any = next((config[key] for key in _DIMENSION_KEYS if key in config), None)
    if not is_count(dimension):
        raise ModelError(f"pooling config.json: got {dimension!r} for word_embedding_dimension; expected a number")
    mode = config.get("pooling_mode")
    modes: tuple[str, ...]
    if mode is None:
        for key in (*POOLING_KEYS, "include_prompt"):
            if config.get(key) not in (True, False, None):
                raise ModelError(f"pooling config.json: got {config[key]!r} for {key}; expected true or false")
        modes = tuple(name for key, name in POOLING_KEYS.items() if config.get(key)) or ("mean",)
    else:
        modes = (mode,) if isinstance(mode, str) else tuple(mode) if isinstance(mode, list) else ()
    unknown = [name for name in modes if name not in POOLING_KEYS.values()]
    if unknown or not 0 < len(modes) <= _MOST_MODES:
        raise ModelError(
            f"pooling config.json: got {mode!r} for pooling_mode; expected one or a list of "
            f"{', '.join(POOLING_KEYS.values())}"
        )
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


# ---- N_Normalize/config.json, N_Dense/config.json ------------------------------------------------------------------
# Version 6 can let a module read and write other things than the sentence embedding; minisbert's never do.
_EMBEDDING = "sentence_embedding"
NORMALIZE_CONFIG: Mapping[str, Any] = {"module_input_name": _EMBEDDING, "module_output_name": _EMBEDDING}
DENSE_KEYS = ("in_features", "out_features", "bias", "activation_function")
DEFAULT_ACTIVATION = "torch.nn.modules.activation.Tanh"


def check_feature_names(kind: str, config: Mapping[str, Any]) -> None:
    """Refuse a module that works on something else than the sentence embedding.

    Raises:
        ModelError: it does.
    """
    for key in NORMALIZE_CONFIG:
        if config.get(key) not in (None, _EMBEDDING):
            raise ModelError(
                f"{kind} config.json: got {config[key]!r} for {key}; expected {_EMBEDDING}, or no such key"
            )


# ---- config_sentence_transformers.json ----------------------------------------------------------------------------
MODEL_TYPE = "SentenceTransformer"
MODEL_KEYS = ("model_type", "__version__", "prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim")
# Readers warn when a model claims a newer version of the reference than theirs; this is the first whose format it is.
WRITTEN_VERSION = "4.0.1"


def is_count(value: Any) -> bool:
    """Whether a JSON value is a whole number above zero."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
