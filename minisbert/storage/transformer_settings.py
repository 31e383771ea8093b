"""What sentence_bert_config.json says, in either dialect and under any of its names.

The older dialect has `max_seq_length` and `do_lower_case`, and arguments for three calls into transformers. Version 6
describes a module that can also read images, follow a chat template or expand queries. What makes no difference to
embeddings of texts is passed over; what does is honoured, or refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .dialects import is_count

DTYPES = ("float32", "float64", "float16", "bfloat16")

# ---- keys of the file ---------------------------------------------------------------------------------------------
# Keys with the only value that minisbert computes.
_FIXED: Mapping[str, Any] = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "query_length": None,
    "document_length": None,
    "query_expansion": None,
    "tokenizer_name_or_path": None,
}
# How fast, or from where: no difference to embeddings.
_WITHOUT_EFFECT = ("unpad_inputs", "cache_dir", "backend")
_READ = ("max_seq_length", "do_lower_case", "modality_config", "processing_kwargs")
# Arguments for loading the model, the tokenizer and the configuration: the name in versions 4 and 5, and in 6.
_GROUPS: Mapping[str, str] = {
    "model_args": "model_kwargs",
    "tokenizer_args": "processor_kwargs",
    "config_args": "config_kwargs",
}
_KNOWN = (*_READ, *_FIXED, *_WITHOUT_EFFECT, *_GROUPS, *_GROUPS.values())

# ---- keys within ---------------------------------------------------------------------------------------------------
# Where files come from; `trust_remote_code` is dropped by the reference too, and no model's code is run here.
_LOADING = (
    "trust_remote_code",
    "cache_dir",
    "code_revision",
    "force_download",
    "local_files_only",
    "revision",
    "subfolder",
    "token",
    "use_auth_token",
)
_MODEL_WITHOUT_EFFECT = (
    "add_pooling_layer",
    "attn_implementation",
    "device_map",
    "low_cpu_mem_usage",
    "use_safetensors",
)
_TOKENIZER_WITHOUT_EFFECT = ("clean_up_tokenization_spaces", "padding_side", "use_fast")
_TOKENIZER_HONOURED = (
    "add_prefix_space",
    "do_lower_case",
    "model_max_length",
    "strip_accents",
    "tokenize_chinese_chars",
    "truncation_side",
)
_CONFIG_WITHOUT_EFFECT = ("output_attentions", "output_hidden_states", "return_dict", "use_cache")
# What is said to the tokenizer call, and the values that change nothing; None stands for any value.
_CALL: Mapping[str, tuple[Any, ...] | None] = {
    "add_special_tokens": (True,),
    "logits_to_keep": None,
    "pad_to_multiple_of": None,
    "padding": None,
    "padding_side": None,
    "return_attention_mask": None,
    "return_tensors": None,
    "return_token_type_ids": None,
    "truncation": (True, "longest_first", "only_first"),
    "verbose": None,
}
_OTHER_INPUTS = ("audio", "chat_template", "image", "video")


@dataclass(frozen=True)
class TransformerSettings:
    """How a Transformer is to be loaded.

    Attributes:
        max_seq_length: longest text in tokens, or None where the file leaves it to tokenizer and encoder.
        do_lower_case: whether texts are put in lower case first.
        dtype: what the weights are loaded as; None for what config.json or the weights themselves say.
        tokenizer: put over the content of tokenizer_config.json.
        config: put over the content of config.json.
    """

    max_seq_length: int | None = None
    do_lower_case: bool = False
    dtype: str | None = None
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


def read_transformer_settings(content: Mapping[str, Any], *, source: Path) -> TransformerSettings:
    """Read the content of a sentence_bert_config.json; `source` is the folder it stands in.

    Raises:
        ModelError: a key is unknown, or asks for something that minisbert does not do.
    """
    where = f"sentence_bert_config.json in {source}"
    unknown = sorted(set(content) - set(_KNOWN))
    if unknown:
        raise ModelError(f"{where}: got key {unknown[0]!r}; expected some of {', '.join(_KNOWN)}")
    for key, value in _FIXED.items():
        if content.get(key) not in (None, value):
            raise ModelError(f"{where}: got {content[key]!r} for {key}; minisbert computes {value!r} only")
    _check_modalities(content.get("modality_config"), where)
    model = _group(content, "model_args", where)
    _refuse_others(model, ("dtype", "torch_dtype", *_MODEL_WITHOUT_EFFECT), where, "model_args")
    tokenizer = _group(content, "tokenizer_args", where)
    _refuse_others(tokenizer, (*_TOKENIZER_HONOURED, *_TOKENIZER_WITHOUT_EFFECT), where, "tokenizer_args")
    config = _group(content, "config_args", where)
    length = content.get("max_seq_length")
    for value in (tokenizer.get("model_max_length"), _call_length(content.get("processing_kwargs"), where)):
        length = length if value is None else value
    if length is not None and not is_count(length):
        raise ModelError(f"{where}: got max_seq_length {length!r}; expected a number of tokens")
    return TransformerSettings(
        max_seq_length=length,
        do_lower_case=bool(content.get("do_lower_case", False)),
        dtype=known_dtype(model.get("dtype", model.get("torch_dtype")), where),
        tokenizer={key: value for key, value in tokenizer.items() if key in _TOKENIZER_HONOURED},
        config={key: value for key, value in config.items() if key not in _CONFIG_WITHOUT_EFFECT},
    )


def known_dtype(name: Any, where: str) -> str | None:
    """A dtype as configurations name it; None for no choice.

    Raises:
        ModelError: it is none that weights are loaded as.
    """
    if name in (None, "auto"):
        return None
    if name not in DTYPES:
        raise ModelError(f"{where}: got dtype {name!r}; expected {', '.join(DTYPES)} or auto")
    return str(name)


def _group(content: Mapping[str, Any], old_name: str, where: str) -> dict[str, Any]:
    group = content[old_name] if old_name in content else content.get(_GROUPS[old_name])
    if group is not None and not isinstance(group, dict):
        raise ModelError(f"{where}: got {group!r} for {old_name}; expected an object")
    return {key: value for key, value in (group or {}).items() if key not in _LOADING}


def _refuse_others(group: Mapping[str, Any], known: tuple[str, ...], where: str, name: str) -> None:
    others = sorted(set(group) - set(known))
    if others:
        raise ModelError(
            f"{where}: got {others[0]!r} in {name}; minisbert knows {', '.join(sorted(known))}: load the model with "
            f"sentence-transformers and save it without"
        )


def _check_modalities(modalities: Any, where: str) -> None:
    if modalities is None:
        return
    text = modalities.get("text") if isinstance(modalities, dict) else None
    if text != {"method": "forward", "method_output_name": "last_hidden_state"}:
        raise ModelError(f"{where}: got {text!r} for text in modality_config; expected forward and last_hidden_state")
    if "message" in modalities:
        raise ModelError(f"{where}: its texts go through a chat template (modality_config), which minisbert has not")


def _call_length(groups: Any, where: str) -> Any:
    """The `max_length` in `processing_kwargs`, or None."""
    if groups is None:
        return None
    if not isinstance(groups, dict) or not all(isinstance(group, dict) for group in groups.values()):
        raise ModelError(f"{where}: got {groups!r} for processing_kwargs; expected an object of objects")
    unknown = sorted(set(groups) - {"common", "text", *_OTHER_INPUTS})
    if unknown:
        raise ModelError(f"{where}: got {unknown[0]!r} in processing_kwargs; expected common and text")
    options = {**groups.get("common", {}), **groups.get("text", {})}
    length = options.pop("max_length", None)
    for key, value in options.items():
        allowed = _CALL.get(key, ())
        if allowed is not None and value not in allowed:
            raise ModelError(f"{where}: got {value!r} for {key} in processing_kwargs, which minisbert does not do")
    return length
