"""The settings of the native encoder, and how they are read from the configuration of an architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import ModelError, shown
from ...kernels import AttentionSettings

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish")
EVERY_BIAS = frozenset({"qkv", "output", "up", "down", "norm"})  # parts of a layer that may have a bias
_LARGEST = 10**9  # of any number; the weights say later whether it is theirs
_FEWEST_BUCKETS = 4  # two for each direction, and of these one for near positions
_MOST = {"num_hidden_layers": 1000, "relative_attention_buckets": 256}
_LEAST_ONE = frozenset(
    {"vocab_size", "hidden_size", "num_attention_heads", "intermediate_size", "max_position_embeddings", "head_size"}
)
# The fields that every configuration has under its own name; others follow from the architecture, or its `keys`.
_COMMON = frozenset(
    {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "type_vocab_size"}
    | {"max_position_embeddings", "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob"}
    | {"layer_norm_eps", "pad_token_id", "initializer_range"}
)


@dataclass(frozen=True)
class EncoderConfig:
    """Settings of an encoder, by Hugging Face's names for BERT.

    Attributes:
        position_offset: row of the position table for the first token of a text.
        head_size: of queries, keys and values; None for hidden_size / num_attention_heads.
        embedding_dropout: drop elements of the embeddings; None for hidden_dropout_prob.
        attention_output_dropout: drop elements of what attention adds to the residual stream; None for
            hidden_dropout_prob.
        inner_dropout: drop elements between the feed-forward layers.
        relative_attention_buckets: rows of the table of relative positions, or 0 for no such table.
        norm_first: normalize the input of attention and feed-forward layers, and once more after the last layer; by
            default their output is normalized.
        norm_added: normalize also what a block adds to the residual stream.
        first_attention_norm: the first layer normalizes the input of attention, if the others do.
        rms_norm: normalize by root mean square, not by mean and variance.
        norm_offset: is added to the weights of normalizations.
        embedding_norm: normalize the embeddings.
        embedding_scale: factor of the word embeddings, rounded to their dtype.
        head_norm: normalize queries and keys, head by head.
        biases: the parts of a layer with a bias: "qkv", "output" (of attention), "up" (and gate), "down", "norm".
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
    head_size: int | None = None
    embedding_dropout: float | None = None
    attention_output_dropout: float | None = None
    inner_dropout: float = 0.0
    relative_attention_buckets: int = 0
    norm_first: bool = False
    norm_added: bool = False
    first_attention_norm: bool = True
    rms_norm: bool = False
    norm_offset: float = 0.0
    embedding_norm: bool = True
    embedding_scale: float | None = None
    head_norm: bool = False
    biases: frozenset[str] = EVERY_BIAS
    gated: bool = False
    attention: tuple[AttentionSettings, ...] = ()

    @property
    def max_tokens(self) -> int | None:
        """The longest text the position embeddings allow, in tokens; None for rotary ones, which have no end."""
        return None if self.rotary else self.default_tokens

    @property
    def default_tokens(self) -> int:
        """The longest text if no other length is asked for, in tokens."""
        return self.max_position_embeddings - self.position_offset

    @property
    def rotary(self) -> bool:
        """True if attention rotates queries and keys by position, in place of a table of positions."""
        return any(settings.rotary_base is not None for settings in self.attention)

    @property
    def size_of_heads(self) -> int:
        """Size of the query, key and value of a head."""
        return self.head_size or self.hidden_size // self.num_attention_heads

    @property
    def layers_as_in_bert(self) -> bool:
        """True if all layers are those of BERT, which CUDA graphs of the whole encoder require."""
        other = self.norm_first or self.norm_added or self.rms_norm or self.head_norm or self.gated or self.attention
        sizes = self.hidden_size == self.num_attention_heads * self.size_of_heads
        rest = self.inner_dropout or self.relative_attention_buckets
        return sizes and self.biases == EVERY_BIAS and not (other or rest)


def _nothing(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Architecture:
    """Names that the checkpoints of one architecture use for their configuration and tensors.

    Attributes:
        names: our tensor names to those of transformers' modules, without `.weight` and `.bias`; `{}` is the layer
            number. A name that ends in " (2 of 3)" is a part of the rows of a tensor.
        keys: our configuration field names to theirs, where they differ.
        defaults: what is assumed for fields the configuration leaves out, where that differs from `EncoderConfig`.
        fixed: fields that follow from the architecture alone.
        derived: reads further fields from the configuration and those read so far.
        native: tells if the encoder computes what a configuration says beyond its fields.
        read_as: names of tensors in files, as regular expressions, to those of the modules, where they differ.
        written_as: those of modules to those in files, likewise.
        split: ends of the names of tensors in files that hold the rows of several, without `.weight` and `.bias`, to
            those of the parts.
        positions_after_padding: positions are counted from the padding id + 1, and a padding token in the middle of
            a text is not counted.
        aliases: our field names under which a configuration may have a field as well; these count more.
        causal: `is_causal` has a meaning for this architecture.
        untyped: there may be no table of token types.
    """

    names: Mapping[str, str]
    keys: Mapping[str, str]
    defaults: Mapping[str, Any]
    fixed: Mapping[str, Any]
    derived: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]] = _nothing
    native: Callable[[Mapping[str, Any]], bool] = lambda config: True
    read_as: tuple[tuple[str, str], ...] = ()
    written_as: tuple[tuple[str, str], ...] = ()
    split: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    positions_after_padding: bool = False
    aliases: frozenset[str] = frozenset()
    causal: bool = False
    untyped: bool = False

    def key(self, name: str) -> str:
        """Return the name in a configuration of a field of `EncoderConfig`."""
        return self.keys.get(name, name)

    def computes(self, config: Mapping[str, Any]) -> bool:
        """Return True if the native encoder computes what a configuration describes."""
        activation = config.get(self.key("hidden_act"))
        known = activation is None or activation in ACTIVATIONS
        return known and not config.get("add_cross_attention", False) and self.native(config)

    def read(self, config: Mapping[str, Any]) -> EncoderConfig:
        """Read a Hugging Face configuration.

        Raises:
            ModelError: a value is missing, of the wrong type, or contradicts another.
        """
        values: dict[str, Any] = {}
        for name, entry in EncoderConfig.__dataclass_fields__.items():
            key = name if name in self.aliases and config.get(name) is not None else self.key(name)
            if name in self.fixed:
                values[name] = self.fixed[name]
            elif name == "pad_token_id" and key in config and config[key] is None and not self.positions_after_padding:
                continue  # there is no such token
            elif config.get(key) is not None and (name in self.keys or name in _COMMON):
                values[name] = _typed(name, key, config[key], str(entry.type))
            elif name in self.defaults:
                values[name] = self.defaults[name]
        self._check_layers(config, values)
        values |= self.derived(config, values)
        if self.positions_after_padding:
            values["position_offset"] = values["pad_token_id"] + 1
        result = EncoderConfig(**values)
        _check(result)
        return result

    def _check_layers(self, config: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        if not self.causal and flag(config, "is_causal"):
            raise ModelError(
                "config.json: got is_causal=True for an encoder, in which every token sees all others; expected false, "
                "or no such key: remove it"
            )
        if values.get("type_vocab_size") == 0 and "type_vocab_size" not in self.fixed and not self.untyped:
            raise ModelError("config.json: got 0 for type_vocab_size; expected at least 1: copy the file again")
        if "embeddings.position" not in self.names and values["num_hidden_layers"] < 1:
            raise ModelError(
                f"config.json: got 0 for {self.key('num_hidden_layers')}; expected at least 1, since layers are all "
                f"that knows the order of tokens"
            )


def number(config: Mapping[str, Any], key: str, default: float | None, *, least: float = 0) -> float:
    """Read a positive number of a configuration.

    Raises:
        ModelError: it is missing and has no default, or is something else.
    """
    value = config.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least < value <= _LARGEST:
        raise ModelError(f"config.json: got {value!r} for {key}; expected a number above {least}")
    return value


def flag(config: Mapping[str, Any], key: str, *, default: bool = False) -> bool:
    """Read a switch of a configuration.

    Raises:
        ModelError: it is neither true nor false.
    """
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise ModelError(f"config.json: got {shown(value)} for {key}; expected true or false")
    return default if value is None else value


def _check(config: EncoderConfig) -> None:
    if config.head_size is None and config.hidden_size % config.num_attention_heads:
        raise ModelError(
            f"config.json: got hidden size {config.hidden_size} and {config.num_attention_heads} attention heads; "
            f"expected a size that the number of heads divides"
        )
    if config.rotary and config.size_of_heads % 2:
        raise ModelError(
            f"config.json: got heads of size {config.size_of_heads}; expected an even size, since rotary positions "
            f"turn pairs of elements"
        )
    for settings in config.attention:
        heads = settings.key_value_heads
        if heads is not None and (heads < 1 or settings.heads % heads):
            raise ModelError(
                f"config.json: got {settings.heads} attention heads and {heads} for keys and values; expected a number "
                f"that divides the first"
            )
    if config.pad_token_id >= config.vocab_size or config.default_tokens < 1:
        raise ModelError(
            f"config.json: got padding token {config.pad_token_id}, {config.vocab_size} tokens and "
            f"{config.max_position_embeddings} positions; expected one of the tokens, and positions beyond its number"
        )
    if 0 < config.relative_attention_buckets < _FEWEST_BUCKETS:
        raise ModelError(
            f"config.json: got {config.relative_attention_buckets} relative attention buckets; expected at least "
            f"{_FEWEST_BUCKETS}"
        )


def _typed(name: str, key: str, value: Any, kind: str) -> Any:
    kind = kind.removesuffix(" | None")
    wanted: tuple[type, ...] = {"int": (int,), "float": (int, float), "bool": (bool,)}.get(kind, (str,))
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "bool"):
        raise ModelError(f"config.json: got {value!r} for {key}; expected a value of type {kind}")
    least = 1 if name in _LEAST_ONE else 0
    most = 1 if name.endswith(("dropout_prob", "dropout")) else _MOST.get(name, _LARGEST)
    if isinstance(value, (int, float)) and not least <= value <= most:
        raise ModelError(f"config.json: got {value} for {key}; expected {least} to {most}, and no negative number")
    return value
