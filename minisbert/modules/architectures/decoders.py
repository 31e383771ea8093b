"""Encoders made from language models: Qwen3, which is causal, and Gemma 3, in EmbeddingGemma without a direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...errors import ModelError
from ...kernels import AttentionSettings
from .architecture import Architecture, flag, number
from .rotary import FULL, SLIDING, layer_kinds, plain_rope, rope_base


def _window(config: Mapping[str, Any]) -> int:
    """The window that a configuration has for its layers with one.

    Raises:
        ModelError: it says that there is none.
    """
    if "sliding_window" in config and config["sliding_window"] is None:
        raise ModelError(
            "config.json: got layers with a sliding window and no sliding_window; expected its size: copy the file "
            "again"
        )
    return int(number(config, "sliding_window", 4096))


def _qwen3(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    layers, heads = values["num_hidden_layers"], values["num_attention_heads"]
    first = int(number(config, "max_window_layers", 28, least=-1))
    has_size = "sliding_window" not in config or config["sliding_window"] is not None
    windowed = flag(config, "use_sliding_window") and has_size
    listed = layer_kinds(config, layers, otherwise=[windowed and layer >= first for layer in range(layers)])
    if any(listed) and not flag(config, "use_sliding_window"):
        raise ModelError(
            "config.json: got layers with a sliding window and use_sliding_window=False; expected one of the two: "
            "copy the file again"
        )
    key_value_heads = int(number(config, "num_key_value_heads", heads))
    base = rope_base(config, None, "rope_theta", 10_000.0)
    causal = flag(config, "is_causal", default=True)
    whole = AttentionSettings(heads, key_value_heads=key_value_heads, causal=causal, rotary_base=base)
    near = replace(whole, window=_window(config) - causal) if any(listed) else whole
    return {
        "biases": frozenset({"qkv", "output"} if flag(config, "attention_bias") else ()),
        "attention": tuple(near if has_window else whole for has_window in listed),
    }


def _gemma3(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    layers, heads = values["num_hidden_layers"], values["num_attention_heads"]
    every = int(number(config, "sliding_window_pattern", 6))
    listed = layer_kinds(config, layers, otherwise=[bool((layer + 1) % every) for layer in range(layers)])
    halved, causal = flag(config, "use_bidirectional_attention"), flag(config, "is_causal", default=True)
    whole = near = AttentionSettings(
        heads,
        key_value_heads=int(number(config, "num_key_value_heads", 4)),
        causal=causal and not halved,
        rotary_base=rope_base(config, FULL, "rope_theta", 1_000_000.0),
        scale=number(config, "query_pre_attn_scalar", 256) ** -0.5,
    )
    if any(listed):
        size = _window(config)
        size = size // 2 + 1 if halved else size  # which was that of both sides together
        base = rope_base(config, SLIDING, "rope_local_base_freq", 10_000.0, scaled=False)
        near = replace(whole, window=size - causal, rotary_base=base)
    return {
        "biases": frozenset({"qkv", "output"} if flag(config, "attention_bias") else ()),
        "embedding_scale": float(values["hidden_size"]) ** 0.5,
        "attention": tuple(near if has_window else whole for has_window in listed),
    }


def _without_cap(config: Mapping[str, Any]) -> bool:
    return plain_rope(config, {FULL: True, SLIDING: False}) and config.get("attn_logit_softcapping") is None


_DECODER_NAMES = {
    "embeddings.word": "embed_tokens",
    "layers.{}.attention.query": "layers.{}.self_attn.q_proj",
    "layers.{}.attention.key": "layers.{}.self_attn.k_proj",
    "layers.{}.attention.value": "layers.{}.self_attn.v_proj",
    "layers.{}.attention.query_norm": "layers.{}.self_attn.q_norm",
    "layers.{}.attention.key_norm": "layers.{}.self_attn.k_norm",
    "layers.{}.attention.output": "layers.{}.self_attn.o_proj",
    "layers.{}.attention.norm": "layers.{}.input_layernorm",
    "layers.{}.feed_forward.up": "layers.{}.mlp.gate_proj",
    "layers.{}.feed_forward.gate": "layers.{}.mlp.up_proj",
    "layers.{}.feed_forward.down": "layers.{}.mlp.down_proj",
    "layers.{}.feed_forward.norm": "layers.{}.post_attention_layernorm",
    "norm": "norm",
}
_FIXED = {
    **{"type_vocab_size": 0, "hidden_dropout_prob": 0.0, "norm_first": True, "rms_norm": True, "head_norm": True},
    **{"gated": True, "embedding_norm": False},
}
_KEYS = {
    "layer_norm_eps": "rms_norm_eps",
    "head_size": "head_dim",
    "attention_probs_dropout_prob": "attention_dropout",
}

QWEN3 = Architecture(
    _DECODER_NAMES,
    _KEYS,
    {
        **{"vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32},
        **{"num_attention_heads": 32, "max_position_embeddings": 32768, "head_size": 128, "hidden_act": "silu"},
        **{"layer_norm_eps": 1e-6, "attention_probs_dropout_prob": 0.0},
    },
    _FIXED,
    derived=_qwen3,
    causal=True,
    native=plain_rope,
)
GEMMA3 = Architecture(
    {
        **_DECODER_NAMES,
        "layers.{}.attention.added_norm": "layers.{}.post_attention_layernorm",
        "layers.{}.feed_forward.norm": "layers.{}.pre_feedforward_layernorm",
        "layers.{}.feed_forward.added_norm": "layers.{}.post_feedforward_layernorm",
    },
    {**_KEYS, "hidden_act": "hidden_activation"},
    {
        **{"vocab_size": 262_208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26},
        **{"num_attention_heads": 8, "max_position_embeddings": 131_072, "head_size": 256},
        **{"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "attention_probs_dropout_prob": 0.0},
    },
    {**_FIXED, "norm_added": True, "norm_offset": 1.0},
    derived=_gemma3,
    causal=True,
    native=_without_cap,
)
