"""The configuration files of a sentence-transformers model: every known form is read, one is written.

Versions 2 to 5 of the reference write one dialect, version 6 another. The older is readable by every version and by
the other tools that load such models, so it is the one written here. All tables are closed: no name found in a file is
ever imported, and a key that would change embeddings is honoured or refused by name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ModelError, shown


def is_count(value: Any) -> bool:
    """Return True if a JSON value is a whole number above zero."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def unusable(where: str | Path, key: str, value: Any, expected: str) -> ModelError:
    """Return the error for a value in a model's configuration that cannot be used."""
    return ModelError(f"{where}: got {key}={shown(value)}; expected {expected}: change it, or copy the model again")


# ---- modules.json ---------------------------------------------------------------------------------------------------
_OLD = "sentence_transformers.models"
_BASE = "sentence_transformers.base.modules"
_DENSE = "sentence_transformers.sentence_transformer.modules"
# The file that defines each module in version 6.
_DEFINED_IN: Mapping[str, str] = {
    "Transformer": f"{_BASE}.transformer",
    "Pooling": f"{_DENSE}.pooling",
    "Normalize": f"{_BASE}.normalize",
    "Dense": f"{_BASE}.dense",
    "LayerNorm": f"{_DENSE}.layer_norm",
    "Dropout": f"{_DENSE}.dropout",
    "WeightedLayerPooling": f"{_DENSE}.weighted_layer_pooling",
    "StaticEmbedding": f"{_DENSE}.static_embedding",
}
# The reference's other modules, and why minisbert does not have them.
_REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("WordEmbeddings", "BoW", "WordWeights"), "looks words up instead of encoding tokens"),
    **dict.fromkeys(("CNN", "LSTM"), "runs over word embeddings instead of an encoder's tokens"),
    **dict.fromkeys(("Router", "Asym"), "has modules of its own for queries and for documents"),
    "CLIPModel": "embeds pictures",
}
WRITTEN_TYPES: Mapping[str, str] = {kind: f"{_OLD}.{kind}" for kind in _DEFINED_IN}
# Every accepted `type` of modules.json: all names by which version 6.2 can import these modules, those of the older
# versions among them.
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
    """Return the name of a module type, such as "Pooling".

    Raises:
        ModelError: minisbert has no such module.
    """
    name = type_name.rpartition(".")[2] if isinstance(type_name, str) else ""
    if name in _REFUSED and str(type_name).startswith("sentence_transformers."):
        raise ModelError(
            f"modules.json: got the module {name}, which {_REFUSED[name]}; expected an encoder, and after it some of "
            f"{', '.join(tuple(WRITTEN_TYPES)[1:])}: minisbert has no {name}"
        )
    if not isinstance(type_name, str) or type_name not in MODULE_TYPES:
        raise ModelError(
            f"modules.json: got module type {shown(type_name)}; expected one of {', '.join(WRITTEN_TYPES)} "
            f"(of sentence_transformers.models): minisbert runs no code from a model folder"
        )
    return MODULE_TYPES[type_name]


# Names of the table of a static model in its checkpoint, by sentence-transformers and by model2vec.
STATIC_TABLES = ("embedding.weight", "embeddings")

# ---- config_sentence_transformers.json ------------------------------------------------------------------------------
MODEL_TYPE = "SentenceTransformer"
MODEL_KEYS = ("model_type", "__version__", "prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim")
# Readers warn if a model claims a newer version of the reference than theirs; this is the first that has this format.
WRITTEN_VERSION = "4.0.1"

# ---- sentence_bert_config.json --------------------------------------------------------------------------------------
# Tried in this order; the first one with content counts.
TRANSFORMER_CONFIGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
DTYPES = ("float32", "float64", "float16", "bfloat16")


# Keys with the only value that minisbert computes.
_FIXED: Mapping[str, Any] = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "query_length": None,
    "document_length": None,
    "query_expansion": None,
    "tokenizer_name_or_path": None,
}
# Arguments for loading the model, the tokenizer and the configuration: their key in versions 4 and 5, and in 6.
_GROUPS: Mapping[str, str] = {
    "model_args": "model_kwargs",
    "tokenizer_args": "processor_kwargs",
    "config_args": "config_kwargs",
}
_HONOURED = ("max_seq_length", "do_lower_case", "modality_config", "processing_kwargs", *_GROUPS, *_GROUPS.values())
_IGNORED = ("unpad_inputs", "cache_dir", "backend")  # speed and place: no difference to embeddings
_KNOWN = (*_HONOURED, *_FIXED, *_IGNORED)

# The keys within a group. Those that say where files come from are ignored in each. The reference drops
# `trust_remote_code` too; no code of a model is run here.
_SOURCE_IGNORED = ("cache_dir", "code_revision", "force_download", "local_files_only", "revision", "subfolder")
_ACCESS_IGNORED = ("token", "trust_remote_code", "use_auth_token")
_MODEL_IGNORED = ("add_pooling_layer", "attn_implementation", "device_map", "low_cpu_mem_usage", "use_safetensors")
_TOKENIZER_IGNORED = ("clean_up_tokenization_spaces", "padding_side", "use_fast")
_CONFIG_IGNORED = ("output_attentions", "output_hidden_states", "return_dict", "use_cache")
_MODEL_HONOURED = ("dtype", "torch_dtype")
_TOKENIZER_HONOURED = (
    "add_prefix_space",
    "do_lower_case",
    "model_max_length",
    "strip_accents",
    "tokenize_chinese_chars",
    "truncation_side",
)
# The groups by their names in version 6, with their keys in a file, and what can be in them; in the last one anything.
LOADING_GROUPS: Mapping[str, tuple[str, str]] = {new: (old, new) for old, new in _GROUPS.items()}
LOADING_KEYS: Mapping[str, frozenset[str]] = {
    "model_kwargs": frozenset({*_MODEL_HONOURED, *_MODEL_IGNORED, *_SOURCE_IGNORED, *_ACCESS_IGNORED}),
    "processor_kwargs": frozenset({*_TOKENIZER_HONOURED, *_TOKENIZER_IGNORED, *_SOURCE_IGNORED, *_ACCESS_IGNORED}),
}
# Options of the tokenizer call, and their values that change nothing; None stands for any value.
_CALL: Mapping[str, tuple[Any, ...] | None] = {
    "add_special_tokens": (True,),
    "truncation": (True, "longest_first", "only_first"),
    **dict.fromkeys(("logits_to_keep", "pad_to_multiple_of", "padding", "padding_side", "verbose")),
    **dict.fromkeys(("return_attention_mask", "return_tensors", "return_token_type_ids")),
}
_CALL_GROUPS = ("common", "text", "audio", "chat_template", "image", "video")
_TEXT_INPUT = {"method": "forward", "method_output_name": "last_hidden_state"}


@dataclass(frozen=True)
class TransformerSettings:
    """The content of a sentence_bert_config.json.

    Attributes:
        max_seq_length: tokens of the longest text, or None if tokenizer and encoder decide.
        do_lower_case: True if texts are lower-cased first.
        dtype: dtype to load the weights in; None for that of config.json or of the weights themselves.
        tokenizer: entries that replace those of tokenizer_config.json.
        config: entries that replace those of config.json.
    """

    max_seq_length: int | None = None
    do_lower_case: bool = False
    dtype: str | None = None
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


def read_transformer_settings(content: Mapping[str, Any], *, source: Path) -> TransformerSettings:
    """Read the content of a sentence_bert_config.json of either dialect; `source` is its folder.

    Raises:
        ModelError: a key is unknown, or asks for something that minisbert does not do.
    """
    where = f"sentence_bert_config.json in {source}"
    if unknown := sorted(set(content) - set(_KNOWN)):
        raise ModelError(f"{where}: got key {shown(unknown[0])}; expected some of {', '.join(_KNOWN)}")
    for key, value in _FIXED.items():
        if content.get(key) not in (None, value):
            raise unusable(where, key, content[key], f"{value!r}, which is all that minisbert computes")
    _check_modalities(content.get("modality_config"), where)
    model = _group(content, "model_args", _MODEL_IGNORED, where, honoured=_MODEL_HONOURED)
    tokenizer = _group(content, "tokenizer_args", _TOKENIZER_IGNORED, where, honoured=_TOKENIZER_HONOURED)
    length = content.get("max_seq_length")
    for value in (tokenizer.get("model_max_length"), _call_length(content.get("processing_kwargs"), where)):
        length = length if value is None else value
    if length is not None and not is_count(length):
        raise unusable(where, "max_seq_length", length, "a number of tokens")
    return TransformerSettings(
        max_seq_length=length,
        do_lower_case=bool(content.get("do_lower_case", False)),
        dtype=read_dtype(model.get("dtype", model.get("torch_dtype")), where),
        tokenizer=tokenizer,
        config=_group(content, "config_args", _CONFIG_IGNORED, where, honoured=None),
    )


def read_dtype(name: Any, where: str) -> str | None:
    """Return the name of a dtype for weights, or None if a configuration leaves the choice open.

    Raises:
        ModelError: weights cannot be loaded in that dtype.
    """
    if name in (None, "auto"):
        return None
    if name not in DTYPES:
        raise unusable(where, "dtype", name, f"{', '.join(DTYPES)} or auto")
    return str(name)


def with_dtype(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the content of a config.json with another dtype; a missing one stands for float32."""
    keys = [key for key in ("dtype", "torch_dtype") if key in config]
    if not keys and name != "float32":
        keys = ["torch_dtype"]
    return {**config, **dict.fromkeys(keys, name)}


def _group(
    content: Mapping[str, Any], key: str, ignored: Collection[str], where: str, *, honoured: Collection[str] | None
) -> dict[str, Any]:
    """Return the arguments of a group that change embeddings: those of `honoured`, or any if that is None."""
    group = content[key] if key in content else content.get(_GROUPS[key])
    if group is not None and not isinstance(group, dict):
        raise unusable(where, key, group, "an object")
    ignored = {*ignored, *_SOURCE_IGNORED, *_ACCESS_IGNORED}
    result = {name: value for name, value in (group or {}).items() if name not in ignored}
    if honoured is not None and (others := sorted(set(result) - set(honoured))):
        raise ModelError(
            f"{where}: got {shown(others[0])} in {key}; minisbert knows {', '.join(sorted({*honoured, *ignored}))}: "
            f"load the model with sentence-transformers and save it without"
        )
    return result


def _check_modalities(modalities: Any, where: str) -> None:
    if modalities is None:
        return
    text = modalities.get("text") if isinstance(modalities, dict) else None
    if text != _TEXT_INPUT:
        raise unusable(where, "modality_config.text", text, str(_TEXT_INPUT))
    if "message" in modalities:
        raise unusable(where, "modality_config.message", modalities["message"], "no chat template, only plain texts")


def _call_length(groups: Any, where: str) -> Any:
    """Return the `max_length` in `processing_kwargs`, or None."""
    if groups is None:
        return None
    if not isinstance(groups, dict) or not all(isinstance(group, dict) for group in groups.values()):
        raise unusable(where, "processing_kwargs", groups, "an object of objects")
    if unknown := sorted(set(groups) - set(_CALL_GROUPS)):
        raise ModelError(f"{where}: got {shown(unknown[0])} in processing_kwargs; expected common and text")
    options = {**groups.get("common", {}), **groups.get("text", {})}
    length = options.pop("max_length", None)
    for key, value in options.items():
        accepted = _CALL.get(key, ())
        if accepted is not None and value not in accepted:
            raise unusable(where, f"processing_kwargs.{key}", value, "no such option, or one of the defaults")
    return length


# ---- 1_Pooling/config.json ------------------------------------------------------------------------------------------
# The old boolean keys in the order in which the reference concatenates their modes, and these modes.
POOLING_KEYS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_FIRST_WRITTEN_KEYS = ("pooling_mode_cls_token", "pooling_mode_mean_tokens")  # the rest follows as above
_MOST_MODES = 20
_DIMENSION_KEYS = ("embedding_dimension", "word_embedding_dimension")


def read_pooling(config: Mapping[str, Any]) -> tuple[int, tuple[str, ...], bool]:
    """Return embedding dimension, modes and `include_prompt` of a pooling configuration of either dialect.

    Raises:
        ModelError: the dimension is missing, a value has the wrong type, or a key is unknown.
    """
    where = "pooling config.json"
    known = (*_DIMENSION_KEYS, *POOLING_KEYS, "pooling_mode", "include_prompt")
    if unknown := sorted(set(config) - set(known)):
        raise ModelError(f"{where}: got key {shown(unknown[0])}; expected some of {', '.join(known)}")
    dimension: Any = next((config[key] for key in _DIMENSION_KEYS if key in config), None)
    if not is_count(dimension):
        raise unusable(where, "word_embedding_dimension", dimension, "a number")
    mode = config.get("pooling_mode")
    modes: tuple[Any, ...]
    if mode is None:
        for key in (*POOLING_KEYS, "include_prompt"):
            if config.get(key) not in (True, False, None):
                raise unusable(where, key, config[key], "true or false")
        modes = tuple(name for key, name in POOLING_KEYS.items() if config.get(key)) or ("mean",)
    else:
        modes = tuple(mode) if isinstance(mode, list) else (mode,)
    names = list(POOLING_KEYS.values())
    if not 0 < len(modes) <= _MOST_MODES or not all(name in names for name in modes):
        raise unusable(where, "pooling_mode", mode, f"one or up to {_MOST_MODES} of {', '.join(names)}")
    return dimension, modes, bool(config.get("include_prompt", True))


def write_pooling(dimension: int, modes: tuple[str, ...], *, include_prompt: bool) -> dict[str, Any]:
    """Return the configuration in the older dialect, or in the newer if only that can say the order of the modes."""
    config: dict[str, Any] = {"word_embedding_dimension": dimension}
    if modes == tuple(name for name in POOLING_KEYS.values() if name in modes):
        config.update({key: POOLING_KEYS[key] in modes for key in dict.fromkeys((*_FIRST_WRITTEN_KEYS, *POOLING_KEYS))})
    else:
        config["pooling_mode"] = list(modes)
    config["include_prompt"] = include_prompt
    return config


# ---- N_WeightedLayerPooling/config.json -----------------------------------------------------------------------------


def read_weighted_pooling(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return embedding dimension, number of layers, and the first one that counts, of either dialect.

    Raises:
        ModelError: a value is missing or of the wrong type.
    """
    where = "WeightedLayerPooling config.json"
    dimension: Any = next((config[key] for key in _DIMENSION_KEYS if key in config), None)
    layers, start = config.get("num_hidden_layers", 12), config.get("layer_start", 4)
    if not is_count(dimension):
        raise unusable(where, "embedding_dimension", dimension, "a number")
    if not is_count(layers):
        raise unusable(where, "num_hidden_layers", layers, "a number")
    if isinstance(start, bool) or not isinstance(start, int) or not 0 <= start <= layers:
        raise unusable(where, "layer_start", start, f"a number from 0 to {layers}")
    return dimension, layers, start


# ---- N_Normalize/config.json, N_Dense/config.json -------------------------------------------------------------------
# In version 6 a module can read and write other features than the sentence embedding; in minisbert it cannot.
_EMBEDDING = "sentence_embedding"
NORMALIZE_CONFIG: Mapping[str, Any] = {"module_input_name": _EMBEDDING, "module_output_name": _EMBEDDING}
DENSE_KEYS = ("in_features", "out_features", "bias", "activation_function")
DEFAULT_ACTIVATION = "torch.nn.modules.activation.Tanh"


def check_feature_names(kind: str, config: Mapping[str, Any]) -> None:
    """Refuse a module that reads or writes something else than the sentence embedding.

    Raises:
        ModelError: it does.
    """
    for key in NORMALIZE_CONFIG:
        if config.get(key) not in (None, _EMBEDDING):
            raise unusable(f"{kind} config.json", key, config[key], f"{_EMBEDDING}, or no such key")
