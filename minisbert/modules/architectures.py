"""The BERT family: one configuration for five architectures, and the names their checkpoints use.

BERT, RoBERTa (with XLM-RoBERTa and CamemBERT), DistilBERT and MPNet differ in a few switches and in what their
checkpoints call things. Both are tables here; the encoder knows only `EncoderConfig` and its own names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ModelError
from ..kernels import AttentionSettings


@dataclass(frozen=True)
class EncoderConfig:
    """Settings of an encoder, by Hugging Face's names for BERT.

    Attributes:
        position_offset: row of the position table for the first token of a text.
        attention_output_dropout: drop elements of what attention adds to the residual stream.
        relative_attention_buckets: rows of the table of relative positions, or 0 for no such table.
        norm_first: normalize the input of attention and feed-forward layers, and once more after the last layer; by
            default their output is normalized.
        rms_norm: normalize by root mean square, not by mean and variance.
        biased: linear layers and normalizations have a bias.
        gated: the feed-forward layers multiply the activation by a second product.
        attention: the kind of attention of each layer; empty for BERT's.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    initializer_range: float = 0.02
    position_offset: int = 0
    attention_output_dropout: bool = True
    relative_attention_buckets: int = 0
    norm_first: bool = False
    rms_norm: bool = False
    biased: bool = True
    gated: bool = False
    attention: tuple[AttentionSettings, ...] = ()

    @property
    def max_tokens(self) -> int:
        """The longest text the position embeddings allow, in tokens."""
        return self.max_position_embeddings - self.position_offset

    @property
    def rotary(self) -> bool:
        """True if attention rotates queries and keys by position, in place of a table of positions."""
        return any(settings.rotary_base is not None for settings in self.attention)

    @property
    def layers_as_in_bert(self) -> bool:
        """True if all layers are those of BERT, which CUDA graphs of the whole encoder require."""
        other = self.norm_first or self.rms_norm or self.gated or self.attention or self.relative_attention_buckets
        return self.biased and not other


@dataclass(frozen=True)
class Architecture:
    """Names that the checkpoints of one architecture use for their configuration and tensors.

    Attributes:
        names: our tensor names to theirs, without `.weight` and `.bias`; `{}` is the layer number.
        keys: our configuration field names to theirs, where they differ.
        defaults: what is assumed for fields the configuration leaves out, where that differs from `EncoderConfig`.
        fixed: fields that follow from the architecture alone.
        positions_after_padding: positions are counted from the padding id + 1, and a padding token in the middle of
            a text is not counted.
    """

    names: Mapping[str, str]
    keys: Mapping[str, str]
    defaults: Mapping[str, Any]
    fixed: Mapping[str, Any]
    positions_after_padding: bool


_BERT_NAMES = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.token_type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "layers.{}.attention.query": "encoder.layer.{}.attention.self.query",
    "layers.{}.attention.key": "encoder.layer.{}.attention.self.key",
    "layers.{}.attention.value": "encoder.layer.{}.attention.self.value",
    "layers.{}.attention.output": "encoder.layer.{}.attention.output.dense",
    "layers.{}.attention.norm": "encoder.layer.{}.attention.output.LayerNorm",
    "layers.{}.feed_forward.up": "encoder.layer.{}.intermediate.dense",
    "layers.{}.feed_forward.down": "encoder.layer.{}.output.dense",
    "layers.{}.feed_forward.norm": "encoder.layer.{}.output.LayerNorm",
}
_MPNET_NAMES = {
    **{ours: theirs for ours, theirs in _BERT_NAMES.items() if ours != "embeddings.token_type"},
    "layers.{}.attention.query": "encoder.layer.{}.attention.attn.q",
    "layers.{}.attention.key": "encoder.layer.{}.attention.attn.k",
    "layers.{}.attention.value": "encoder.layer.{}.attention.attn.v",
    "layers.{}.attention.output": "encoder.layer.{}.attention.attn.o",
    "layers.{}.attention.norm": "encoder.layer.{}.attention.LayerNorm",
    "relative_attention_bias": "encoder.relative_attention_bias",
}
_DISTILBERT_NAMES = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "layers.{}.attention.query": "transformer.layer.{}.attention.q_lin",
    "layers.{}.attention.key": "transformer.layer.{}.attention.k_lin",
    "layers.{}.attention.value": "transformer.layer.{}.attention.v_lin",
    "layers.{}.attention.output": "transformer.layer.{}.attention.out_lin",
    "layers.{}.attention.norm": "transformer.layer.{}.sa_layer_norm",
    "layers.{}.feed_forward.up": "transformer.layer.{}.ffn.lin1",
    "layers.{}.feed_forward.down": "transformer.layer.{}.ffn.lin2",
    "layers.{}.feed_forward.norm": "transformer.layer.{}.output_layer_norm",
}
_DISTILBERT_KEYS = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
}
_SIZES = {  # what Hugging Face assumes for BERT, RoBERTa and MPNet where a configuration leaves a size out
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}

# Fields that follow from the architecture: no configuration says them but by a name in `Architecture.keys`.
_SWITCHES = frozenset(
    {"position_offset", "attention_output_dropout", "relative_attention_buckets"}
    | {"norm_first", "rms_norm", "biased", "gated", "attention"}
)
_BERT = Architecture(_BERT_NAMES, {}, _SIZES, {}, positions_after_padding=False)
_ROBERTA = Architecture(
    _BERT_NAMES, {}, {**_SIZES, "vocab_size": 50265, "pad_token_id": 1}, {}, positions_after_padding=True
)
_DISTILBERT = Architecture(
    _DISTILBERT_NAMES,
    _DISTILBERT_KEYS,
    {**_SIZES, "num_hidden_layers": 6},
    {"type_vocab_size": 0, "layer_norm_eps": 1e-12, "attention_output_dropout": False},
    positions_after_padding=False,
)
_MPNET = Architecture(
    _MPNET_NAMES,
    {"relative_attention_buckets": "relative_attention_num_buckets"},
    {**_SIZES, "vocab_size": 30527, "pad_token_id": 1, "relative_attention_buckets": 32},
    {"type_vocab_size": 0},
    positions_after_padding=True,
)
ARCHITECTURES: Mapping[str, Architecture] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
    "mpnet": _MPNET,
}
_LARGEST = 10**9  # of any number; the weights say later whether it is theirs
_FEWEST_BUCKETS = 4  # two for each direction, and of these one for near positions
_MOST = {"num_hidden_layers": 1000, "relative_attention_buckets": 256}
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish")


def is_native(config: Mapping[str, Any]) -> bool:
    """Return True if the native encoder computes what this Hugging Face configuration describes."""
    model_type = config.get("model_type")
    architecture = ARCHITECTURES.get(model_type) if isinstance(model_type, str) else None
    if architecture is None:
        return False
    activation = config.get(architecture.keys.get("hidden_act", "hidden_act"), "gelu")
    return (
        activation in ACTIVATIONS
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("is_decoder", False)
        and not config.get("add_cross_attention", False)
    )


def encoder_config(config: Mapping[str, Any]) -> EncoderConfig:
    """Read a Hugging Face configuration of the BERT family.

    Raises:
        ModelError: a value is missing, of the wrong type, or contradicts another.
    """
    architecture = ARCHITECTURES[config["model_type"]]
    values: dict[str, Any] = {}
    for name, field in EncoderConfig.__dataclass_fields__.items():
        key = architecture.keys.get(name, name)
        if name in architecture.fixed:
            values[name] = architecture.fixed[name]
        elif config.get(key) is not None and (name in architecture.keys or name not in _SWITCHES):
            values[name] = _typed(name, key, config[key], str(field.type))
        elif name in architecture.defaults:
            values[name] = architecture.defaults[name]
    if architecture.positions_after_padding:
        values["position_offset"] = values["pad_token_id"] + 1
    result = EncoderConfig(**values)
    if result.hidden_size % result.num_attention_heads:
        raise ModelError(
            f"config.json: got hidden size {result.hidden_size} and {result.num_attention_heads} attention heads; "
            f"expected a size that the number of heads divides"
        )
    if result.pad_token_id >= result.vocab_size or result.max_tokens < 1:
        raise ModelError(
            f"config.json: got padding token {result.pad_token_id}, {result.vocab_size} tokens and "
            f"{result.max_position_embeddings} positions; expected one of the tokens, and positions beyond its number"
        )
    if 0 < result.relative_attention_buckets < _FEWEST_BUCKETS:
        raise ModelError(
            f"config.json: got {result.relative_attention_buckets} relative attention buckets; expected at least "
            f"{_FEWEST_BUCKETS}"
        )
    return result


def checkpoint_names(config: Mapping[str, Any], ours: Iterable[str]) -> dict[str, str]:
    """Our tensor names (with `.weight` or `.bias`) to those of a Hugging Face checkpoint."""
    names = ARCHITECTURES[config["model_type"]].names
    result = {}
    for name in ours:
        stem, _, kind = name.rpartition(".")
        layer = re.search(r"\.(\d+)\.", stem)
        number = layer.group(1) if layer else ""
        pattern = stem.replace(f".{number}.", ".{}.") if number else stem
        result[name] = f"{names[pattern].format(number)}.{kind}"
    return result


def _typed(name: str, key: str, value: Any, kind: str) -> Any:
    wanted: tuple[type, ...] = {"int": (int,), "float": (int, float), "bool": (bool,)}.get(kind, (str,))
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "bool"):
        raise ModelError(f"config.json: got {value!r} for {key}; expected a value of type {kind}")
    least = 1 if name in _SIZES and name != "num_hidden_layers" else 0
    most = 1 if name.endswith("dropout_prob") else _MOST.get(name, _LARGEST)
    if isinstance(value, (int, float)) and not least <= value <= most:
        raise ModelError(f"config.json: got {value} for {key}; expected {least} to {most}, and no negative number")
    return value
