"""The parts of an encoder: embeddings, self-attention and the feed-forward layers, over the protocol of operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels import AttentionSettings, AttentionSpec, Operations, Projections, Tables
from ..packing import PackedBatch
from .architectures import EncoderConfig, number_of_layers

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
}


class Linear(nn.Linear):
    """A linear layer whose weights are loaded, or drawn by `Encoder.reset_parameters`."""

    def reset_parameters(self) -> None:
        """Draw nothing."""


class Embedding(nn.Embedding):
    """An embedding table whose rows are loaded, or drawn by `Encoder.reset_parameters`.

    torch's own draws them when it is made, and imports its compiler on the meta device.
    """

    def reset_parameters(self) -> None:
        """Draw nothing."""


class Embeddings(nn.Module):
    """Word, position and token-type embeddings, normalized or scaled."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.word = Embedding(config.vocab_size, dim)
        self.position = None if config.rotary else Embedding(config.max_position_embeddings, dim)
        self.token_type = Embedding(config.type_vocab_size, dim) if config.type_vocab_size else None
        self.norm = make_norm(config) if config.embedding_norm else None
        self.scale = config.embedding_scale
        dropout = config.embedding_dropout
        self.dropout = config.hidden_dropout_prob if dropout is None else dropout
        self.offset = config.position_offset
        self.last_position = config.max_position_embeddings - 1
        self.padding = config.pad_token_id

    def forward(self, batch: PackedBatch, operations: Operations) -> Tensor:
        """Embed the tokens of `batch`: (tokens, dim)."""
        tables = Tables(self.word, self.position, self.token_type)
        dropout = self.dropout if self.training else 0.0
        hidden = operations.embed(batch, self.positions(batch), tables, self.norm, dropout=dropout)
        return hidden if self.scale is None else hidden * torch.tensor(self.scale).to(self.word.weight.dtype).item()

    def positions(self, batch: PackedBatch) -> Tensor:
        """Return the row of the position table for each token: int64, (tokens,)."""
        if not self.offset:
            return batch.positions
        # RoBERTa and MPNet count positions over what is not the padding token. A text may spell that token out
        # ("<pad>"); it then stays at the padding position and is not counted.
        counted = (batch.input_ids != self.padding).long()
        before = F.pad(counted.cumsum(0), (1, 0))  # (tokens + 1,), over the whole batch
        starts = batch.offsets[:-1].long()
        in_text = before[1:] - before[starts][batch.text_index]
        # Tokens that belong to no text, which fill a batch up for a CUDA graph, must not lie beyond the table.
        return (in_text * counted + self.padding).clamp(max=self.last_position)


class SelfAttention(nn.Module):
    """Multi-head self-attention within each text, with its residual and normalization.

    Args:
        config: of the encoder.
        layer: number of the layer, from 0.
    """

    def __init__(self, config: EncoderConfig, layer: int) -> None:
        super().__init__()
        dim, heads = config.hidden_size, config.num_attention_heads
        self.settings = config.attention[layer] if config.attention else AttentionSettings(heads)
        size, biased = config.size_of_heads, "qkv" in config.biases
        wide, width = size * heads, size * (self.settings.key_value_heads or heads)
        # Weights are drawn in the order of these lines.
        self.query = Linear(dim, wide, bias=biased)
        self.key, self.value = (Linear(dim, width, bias=biased) for _ in range(2))
        self.output = Linear(wide, dim, bias="output" in config.biases)
        self.query_norm, self.key_norm = (make_norm(config, size) if config.head_norm else None for _ in range(2))
        self.norm = make_norm(config) if layer or config.first_attention_norm else nn.Identity()
        self.added_norm = make_norm(config) if config.norm_added else None
        self.norm_first = config.norm_first
        dropout = config.attention_output_dropout
        self.weight_dropout = config.attention_probs_dropout_prob
        self.output_dropout = config.hidden_dropout_prob if dropout is None else dropout

    def forward(self, hidden: Tensor, batch: PackedBatch, operations: Operations, bias: Tensor | None) -> Tensor:
        """(tokens, dim) to (tokens, dim); `bias` is added to the scores."""
        x = operations.norm(hidden, self.norm) if self.norm_first else hidden
        modules = Projections(self.query, self.key, self.value, self.query_norm, self.key_norm)
        spec = AttentionSpec(self.settings, self.weight_dropout if self.training else 0.0, bias)
        attended = operations.attention(x, modules, batch, spec)
        return self.finish(attended, hidden, operations)

    def finish(self, attended: Tensor, hidden: Tensor, operations: Operations) -> Tensor:
        """Compute what follows attention, token by token: (tokens, dim) each, to (tokens, dim)."""
        if self.added_norm is not None:
            return operations.norm_add(attended, self.output, hidden, self.added_norm)
        dropout = self.output_dropout if self.training else 0.0
        norm = None if self.norm_first else self.norm
        return operations.add_norm(attended, self.output, hidden, norm, dropout=dropout)


class FeedForward(nn.Module):
    """The linear layers after attention, with their residual and normalization."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        dim, inner = config.hidden_size, config.intermediate_size
        self.up = Linear(dim, inner, bias="up" in config.biases)
        self.gate = Linear(dim, inner, bias="up" in config.biases) if config.gated else None
        self.down = Linear(inner, dim, bias="down" in config.biases)
        self.norm = make_norm(config)
        self.added_norm = make_norm(config) if config.norm_added else None
        self.norm_first = config.norm_first
        self.activation = _ACTIVATIONS[config.hidden_act]
        self.dropout, self.inner_dropout = config.hidden_dropout_prob, config.inner_dropout

    def forward(self, hidden: Tensor, operations: Operations) -> Tensor:
        """(tokens, dim) to (tokens, dim)."""
        x = operations.norm(hidden, self.norm) if self.norm_first else hidden
        inner = operations.activate(x, self.up, self.activation, self.gate)  # (tokens, inner)
        if self.training and self.inner_dropout:
            inner = F.dropout(inner, self.inner_dropout)
        if self.added_norm is not None:
            return operations.norm_add(inner, self.down, hidden, self.added_norm)
        dropout = self.dropout if self.training else 0.0
        return operations.add_norm(inner, self.down, hidden, None if self.norm_first else self.norm, dropout=dropout)


class EncoderLayer(nn.Module):
    """One layer: self-attention, then the feed-forward layers.

    Args:
        config: of the encoder.
        layer: number of the layer, from 0.
    """

    def __init__(self, config: EncoderConfig, layer: int) -> None:
        super().__init__()
        self.attention = SelfAttention(config, layer)
        self.feed_forward = FeedForward(config)

    def forward(self, hidden: Tensor, batch: PackedBatch, operations: Operations, bias: Tensor | None) -> Tensor:
        """(tokens, dim) to (tokens, dim); `bias` is added to the scores of attention."""
        changed: Tensor = self.feed_forward(self.attention(hidden, batch, operations, bias), operations)
        return changed


class OffsetRMSNorm(nn.RMSNorm):
    """Normalization by root mean square whose weights are counted from an offset, such as 1 in Gemma.

    Args:
        size: of the rows.
        eps: is added to the mean square.
        offset: is added to the weights.
    """

    def __init__(self, size: int, *, eps: float, offset: float) -> None:
        self.offset = offset
        super().__init__(size, eps=eps)

    def reset_parameters(self) -> None:
        """Let the weights and the offset be 1 together."""
        nn.init.constant_(self.weight, 1 - self.offset)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize in float32 at least: (rows, size) to the same."""
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        weight = self.weight.to(wide.dtype) + self.offset
        return F.rms_norm(wide, tuple(self.normalized_shape), weight, self.eps).to(x.dtype)


def make_norm(config: EncoderConfig, size: int | None = None) -> nn.Module:
    """Return a normalization of hidden states, or of rows of another size."""
    size, eps = size or config.hidden_size, config.layer_norm_eps
    if config.rms_norm:
        offset = config.norm_offset
        return OffsetRMSNorm(size, eps=eps, offset=offset) if offset else nn.RMSNorm(size, eps=eps)
    return nn.LayerNorm(size, eps=eps, bias="norm" in config.biases)


def changed_layers(modules: Iterable[nn.Module], own: EncoderConfig, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of config.json that say which layers there are, if the caller has taken some away.

    Args:
        modules: the layers.
        own: the encoder's settings when it was made.
        config: the content of config.json that it was made from.

    Raises:
        ConfigError: no configuration can say so.
    """
    layers = [layer for layer in modules if isinstance(layer, EncoderLayer)]
    settings = [layer.attention.settings for layer in layers]
    if len(layers) == own.num_hidden_layers and settings == list(own.attention or settings):
        return {}
    first_is_kept = layers and isinstance(layers[0].attention.norm, nn.Identity)
    if not (own.first_attention_norm or first_is_kept):
        raise ConfigError(
            f"got a {config.get('model_type')} encoder without its first layer, which alone has no normalization "
            f"before attention; expected that layer to be kept: take others away"
        )
    changed: dict[str, Any] = {**number_of_layers(config, len(layers))}
    if "layer_types" in config or any(one.window is not None for one in own.attention):
        changed["layer_types"] = [f"{'full' if one.window is None else 'sliding'}_attention" for one in settings]
    return changed
