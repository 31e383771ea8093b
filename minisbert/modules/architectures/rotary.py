"""Encoders with rotary positions: ModernBERT, nomic_bert and gte."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ...errors import ModelError, shown
from ...kernels import AttentionSettings
from .architecture import Architecture, flag, number

FULL, SLIDING = "full_attention", "sliding_attention"
_SCALED = frozenset({"linear", "dynamic", "yarn", "longrope", "llama3", "proportional"})  # left to transformers


def rope_base(config: Mapping[str, Any], kind: str | None, key: str, default: float, *, scaled: bool = True) -> float:
    """Return the base of the rotary positions of layers.

    Args:
        config: the configuration, in the form of transformers 5 (`rope_parameters`) or an older one.
        kind: of the layers, "full_attention" or "sliding_attention", where these have bases of their own.
        key: that an older configuration has for it.
        default: what is assumed if it has none.
        scaled: an older `rope_scaling` is meant for these layers, too.

    Raises:
        ModelError: the rotary positions are of an unknown type, or the base is no positive number.
    """
    found = _parameters(config, kind, scaled=scaled)
    rope_type = _rope_type(found)
    if rope_type != "default":
        raise ModelError(
            f"config.json: got rope_type {shown(rope_type)}; expected one of default, {', '.join(sorted(_SCALED))}: "
            f"copy the file again"
        )
    return float(number(found if "rope_theta" in found else {"rope_theta": config.get(key)}, "rope_theta", default))


def plain_rope(config: Mapping[str, Any], kinds: Mapping[str | None, bool] = MappingProxyType({None: True})) -> bool:
    """Return True unless rotary positions are scaled in a way that transformers computes, and the encoder does not.

    Args:
        config: the configuration.
        kinds: the kinds of layers that have settings of their own, and if `rope_scaling` is meant for them.
    """
    found = (_parameters(config, kind, scaled=scaled) for kind, scaled in kinds.items())
    return all(_rope_type(parameters) not in _SCALED for parameters in found)


def layer_kinds(config: Mapping[str, Any], layers: int, *, otherwise: Sequence[bool]) -> list[bool]:
    """Return for each layer if its attention has a window.

    Args:
        config: the configuration.
        layers: their number.
        otherwise: the answer if the configuration does not list them.

    Raises:
        ModelError: the list is not one of a known kind for each layer.
    """
    kinds = config.get("layer_types")
    if kinds is None:
        return list(otherwise)
    if not isinstance(kinds, list) or len(kinds) < layers or any(kind not in (FULL, SLIDING) for kind in kinds):
        raise ModelError(
            f"config.json: got layer_types {shown(kinds)}; expected {layers} of {FULL} and {SLIDING}: copy the file "
            f"again"
        )
    return [kind == SLIDING for kind in kinds[:layers]]


def _parameters(config: Mapping[str, Any], kind: str | None, *, scaled: bool) -> Mapping[str, Any]:
    """The settings of the rotary positions of layers, or an empty mapping.

    An older `rope_scaling` beside `rope_parameters` counts more: in place of all of it, or, where kinds of layers have
    settings of their own, in place of what it names.
    """
    found, scaling = _settings(config, "rope_parameters"), _settings(config, "rope_scaling")
    if kind is None:
        found = scaling or found
    if found and any(name in found for name in (FULL, SLIDING)) == (kind is None):
        expected = "those of all layers" if kind is None else f"{FULL} and {SLIDING}, with those of each"
        raise ModelError(f"config.json: got rope_parameters {shown(dict(found))}; expected {expected}: copy it again")
    if kind is None:
        return found
    return {"rope_type": "default", **_settings(found, kind), **(scaling if scaled else {})}


def _settings(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = config.get(key)
    if found is not None and not isinstance(found, Mapping):
        raise ModelError(f"config.json: got {shown(found)} for {key}; expected settings by name, or null")
    return found or {}


def _rope_type(parameters: Mapping[str, Any]) -> Any:
    return parameters.get("rope_type", parameters.get("type", "default"))


def _plain_of_both_kinds(config: Mapping[str, Any]) -> bool:
    return plain_rope(config, {FULL: True, SLIDING: True})


def _modern_bert(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    layers, heads = values["num_hidden_layers"], values["num_attention_heads"]
    every = int(number(config, "global_attn_every_n_layers", 3))
    local = layer_kinds(config, layers, otherwise=[bool(layer % every) for layer in range(layers)])
    window = int(number(config, "local_attention", 128)) // 2
    if config.get("sliding_window") is not None:  # which transformers takes as well, for half of it
        window = int(number(config, "sliding_window", None))
    whole = AttentionSettings(heads, rotary_base=rope_base(config, FULL, "global_rope_theta", 160_000.0))
    near = AttentionSettings(heads, window=window, rotary_base=rope_base(config, SLIDING, "local_rope_theta", 10_000.0))
    biases = {"qkv": "attention_bias", "output": "attention_bias", "up": "mlp_bias", "down": "mlp_bias"}
    parts = {**biases, "norm": "norm_bias"}
    return {
        "biases": frozenset(part for part, key in parts.items() if flag(config, key)),
        "attention": tuple(near if has_window else whole for has_window in local),
    }


def _one_base(default: float) -> Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]:
    def derived(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        base = rope_base(config, None, "rope_theta", default)
        layer = AttentionSettings(values["num_attention_heads"], rotary_base=base)
        return {"attention": (layer,) * values["num_hidden_layers"]}

    return derived


_MODERN_BERT_NAMES = {
    "embeddings.word": "embeddings.tok_embeddings",
    "embeddings.norm": "embeddings.norm",
    "layers.{}.attention.query": "layers.{}.attn.Wqkv (1 of 3)",
    "layers.{}.attention.key": "layers.{}.attn.Wqkv (2 of 3)",
    "layers.{}.attention.value": "layers.{}.attn.Wqkv (3 of 3)",
    "layers.{}.attention.output": "layers.{}.attn.Wo",
    "layers.{}.attention.norm": "layers.{}.attn_norm",
    "layers.{}.feed_forward.up": "layers.{}.mlp.Wi (1 of 2)",
    "layers.{}.feed_forward.gate": "layers.{}.mlp.Wi (2 of 2)",
    "layers.{}.feed_forward.down": "layers.{}.mlp.Wo",
    "layers.{}.feed_forward.norm": "layers.{}.mlp_norm",
    "norm": "final_norm",
}
_GATED_NAMES = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.token_type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "layers.{}.attention.query": "layers.{}.self_attn.q_proj",
    "layers.{}.attention.key": "layers.{}.self_attn.k_proj",
    "layers.{}.attention.value": "layers.{}.self_attn.v_proj",
    "layers.{}.attention.output": "layers.{}.self_attn.o_proj",
    "layers.{}.attention.norm": "layers.{}.post_attention_layernorm",
    "layers.{}.feed_forward.up": "layers.{}.mlp.gate_proj",
    "layers.{}.feed_forward.gate": "layers.{}.mlp.up_proj",
    "layers.{}.feed_forward.down": "layers.{}.mlp.down_proj",
    "layers.{}.feed_forward.norm": "layers.{}.post_mlp_layernorm",
}
_HEADS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")

MODERN_BERT = Architecture(
    _MODERN_BERT_NAMES,
    {
        "layer_norm_eps": "norm_eps",
        "hidden_act": "hidden_activation",
        "embedding_dropout": "embedding_dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "attention_output_dropout": "attention_dropout",
        "inner_dropout": "mlp_dropout",
    },
    {
        **{"vocab_size": 50368, "hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 22},
        **{"num_attention_heads": 12, "max_position_embeddings": 8192, "layer_norm_eps": 1e-5, "pad_token_id": 50283},
        **{"embedding_dropout": 0.0, "attention_probs_dropout_prob": 0.0, "attention_output_dropout": 0.0},
    },
    {
        "type_vocab_size": 0,
        "hidden_dropout_prob": 0.0,
        "norm_first": True,
        "first_attention_norm": False,
        "gated": True,
    },
    derived=_modern_bert,
    native=_plain_of_both_kinds,
    split={
        "attn.Wqkv": ("attn.Wqkv (1 of 3)", "attn.Wqkv (2 of 3)", "attn.Wqkv (3 of 3)"),
        "mlp.Wi": ("mlp.Wi (1 of 2)", "mlp.Wi (2 of 2)"),
    },
)
NOMIC_BERT = Architecture(
    _GATED_NAMES,
    {"head_size": "head_dim"},
    {
        **{"vocab_size": 30528, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
        **{"num_attention_heads": 12, "max_position_embeddings": 2048, "hidden_act": "silu"},
        **{"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    },
    {"gated": True, "biases": frozenset({"norm"})},
    derived=_one_base(1000.0),
    native=plain_rope,
    read_as=(
        (r"\bencoder\.layers\.", "layers."),
        (r"\bemb_ln\b", "embeddings.LayerNorm"),
        (r"\.attn\.out_proj\b", ".self_attn.o_proj"),
        (r"\.attn\.Wqkv\b", ".self_attn.Wqkv"),
        (r"\.mlp\.fc11\b", ".mlp.up_proj"),
        (r"\.mlp\.fc12\b", ".mlp.gate_proj"),
        (r"\.mlp\.fc2\b", ".mlp.down_proj"),
        (r"\.norm1\b", ".post_attention_layernorm"),
        (r"\.norm2\b", ".post_mlp_layernorm"),
    ),
    written_as=(
        (r"^layers\.", "encoder.layers."),
        (r"^embeddings\.LayerNorm\b", "emb_ln"),
        (r"\.self_attn\.o_proj\b", ".attn.out_proj"),
        (r"\.self_attn\.Wqkv\b", ".attn.Wqkv"),
        (r"\.mlp\.up_proj\b", ".mlp.fc11"),
        (r"\.mlp\.gate_proj\b", ".mlp.fc12"),
        (r"\.mlp\.down_proj\b", ".mlp.fc2"),
        (r"\.post_attention_layernorm\b", ".norm1"),
        (r"\.post_mlp_layernorm\b", ".norm2"),
    ),
    split={"self_attn.Wqkv": _HEADS},
)
GTE = Architecture(
    _GATED_NAMES,
    {"inner_dropout": "hidden_dropout_prob"},
    {
        **{"vocab_size": 250048, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
        **{"num_attention_heads": 12, "max_position_embeddings": 8192, "type_vocab_size": 1, "pad_token_id": 1},
        **{"attention_probs_dropout_prob": 0.0, "inner_dropout": 0.1},
    },
    {"gated": True, "biases": frozenset({"qkv", "output", "down", "norm"})},
    derived=_one_base(160_000.0),
    untyped=True,
    native=plain_rope,
    read_as=(
        (r"\bencoder\.layer\.", "layers."),
        (r"\.attention\.(qkv|o)_proj\b", r".self_attn.\1_proj"),
        (r"\.attn_ln\b", ".post_attention_layernorm"),
        (r"\.mlp_ln\b", ".post_mlp_layernorm"),
    ),
    written_as=(
        (r"^layers\.", "encoder.layer."),
        (r"\.self_attn\.(qkv|o)_proj\b", r".attention.\1_proj"),
        (r"\.post_attention_layernorm\b", ".attn_ln"),
        (r"\.post_mlp_layernorm\b", ".mlp_ln"),
    ),
    split={"self_attn.qkv_proj": _HEADS, "mlp.up_gate_proj": ("mlp.up_proj", "mlp.gate_proj")},
)
