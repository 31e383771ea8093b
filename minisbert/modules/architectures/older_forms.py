"""Configurations of model code that came with a checkpoint, rewritten as transformers has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import ModelError, shown

_NOMIC_KEYS = {  # theirs to those of transformers
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
    "resid_pdrop": "hidden_dropout_prob",
    "attn_pdrop": "attention_probs_dropout_prob",
}
# What the encoder computes of that code's switches; another value is refused.
_NOMIC_SWITCHES: Mapping[str, tuple[Any, ...]] = {
    "activation_function": ("swiglu",),
    "prenorm": (False,),
    "use_rms_norm": (False, None),
    "causal": (False,),
    "parallel_block": (False,),
    "qkv_proj_bias": (False,),
    "mlp_fc1_bias": (False,),
    "mlp_fc2_bias": (False,),
    "rotary_emb_fraction": (1, 1.0),
    "rotary_emb_interleaved": (False,),
    "rotary_emb_scale_base": (None,),
    "rotary_scaling_factor": (None,),
    "embd_pdrop": (0, 0.0),
}
_NEW_SWITCHES: Mapping[str, tuple[Any, ...]] = {
    "layer_norm_type": ("layer_norm",),
    "position_embedding_type": ("rope",),
    "pack_qkv": (True,),
    "logn_attention_scale": (False,),
    "logn_attention_clip1": (False,),
    "rope_scaling": (None,),
}
_DROPPED = frozenset(  # settings of that code which change nothing in what is computed
    {"auto_map", "unpad_inputs", "use_memory_efficient_attention", "use_flash_attn", "use_xentropy", "fused_bias_fc"}
    | {"fused_dropout_add_ln", "pad_vocab_size_multiple", "dense_seq_output", "max_trained_positions"}
)


def current(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a configuration as transformers has it: model_type "new" as "gte", and nomic_bert's with GPT-2's names.

    Any other is returned as it is.

    Raises:
        ModelError: it asks for something that the encoder does not compute.
    """
    if config.get("model_type") == "new":
        return _gte(config)
    older = any(key in config for key in ("n_embd", "n_layer", "n_head")) and "hidden_size" not in config
    if config.get("model_type") == "nomic_bert" and older:
        return _nomic_bert(config)
    return config


def _gte(config: Mapping[str, Any]) -> Mapping[str, Any]:
    _check(config, _NEW_SWITCHES, "the model in its converted form (model_type gte)")
    kept = {key: value for key, value in config.items() if key not in {*_DROPPED, *_NEW_SWITCHES, "rope_theta"}}
    rope = {"rope_theta": config.get("rope_theta", 10000.0), "rope_type": "default"}
    return {**kept, "model_type": "gte", "architectures": ["GteModel"], "rope_parameters": rope}


def _nomic_bert(config: Mapping[str, Any]) -> Mapping[str, Any]:
    _check(config, _NOMIC_SWITCHES, "a model in the form of transformers")
    left = {*_DROPPED, *_NOMIC_SWITCHES, *_NOMIC_KEYS, "rotary_emb_base"}
    kept = {key: value for key, value in config.items() if key not in left}
    renamed = {new: config[old] for old, new in _NOMIC_KEYS.items() if config.get(old) is not None}
    rope = {"rope_theta": config.get("rotary_emb_base", 10000.0), "rope_type": "default"}
    return {**kept, **renamed, "architectures": ["NomicBertModel"], "hidden_act": "silu", "rope_parameters": rope}


def _check(config: Mapping[str, Any], switches: Mapping[str, tuple[Any, ...]], instead: str) -> None:
    for key, values in switches.items():
        if key in config and config[key] not in values:
            raise ModelError(
                f"config.json: got {key}={shown(config[key])} for model_type {config['model_type']}, which code of the "
                f"model computes and minisbert does not; expected {shown(values[0])}: load {instead}"
            )
