"""The parts of an encoder: embeddings, self-attention and the feed-forward layers, over the protocol of operations."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import Activation, AttentionSettings, Operations
from ..kernels.weights import Affine, LayerWeights, Norm
from ..packing import PackedBatch
from .architectures import EncoderConfig

_ACTIVATIONS: dict[str, Activation] = {
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
    """Word, position and token-type embeddings, normalized."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.word = Embedding(config.vocab_size, dim)
        self.position = Embedding(config.max_position_embeddings, dim)
        self.token_type = Embedding(config.type_vocab_size, dim) if config.type_vocab_size else None
        self.norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.dropout = config.hidden_dropout_prob
        self.offset = config.position_offset
        self.padding = config.pad_token_id

    def forward(self, batch: PackedBatch, operations: Operations) -> Tensor:
        """Embed the tokens of `batch`: (tokens, dim)."""
        return operations.embed(
            batch,
            self.positions(batch),
            self.word,
            self.position,
            self.token_type,
            self.norm,
            dropout=self.dropout if self.training else 0.0,
        )

    def positions(self, batch: PackedBatch) -> Tensor:
        """Return the row of the position table for each token: int64, (tokens,)."""
        if not self.offset:
            return batch.positions
        # RoBERTa and MPNet count positions over what is not the padding token. A text may spell that token out
        # ("<pad>"); it then stays at the padding position and is not counted.
        counted = (batch.input_ids != self.padding).long()
        total = counted.cumsum(0)  # (tokens,), over the whole batch
        before = total - counted
        starts = batch.offsets[:-1].long()
        in_text = total - before[starts][batch.text_index]
        return in_text * counted + self.padding


class SelfAttention(nn.Module):
    """Multi-head self-attention within each text, with its residual and normalization."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.query, self.key, self.value, self.output = (Linear(dim, dim) for _ in range(4))
        self.norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.settings = AttentionSettings(config.num_attention_heads)
        self.weight_dropout = config.attention_probs_dropout_prob
        self.output_dropout = config.hidden_dropout_prob if config.attention_output_dropout else 0.0

    def forward(self, hidden: Tensor, batch: PackedBatch, operations: Operations, bias: Tensor | None) -> Tensor:
        """(tokens, dim) to (tokens, dim); `bias` is added to the scores."""
        attended = operations.attention(
            hidden,
            self.query,
            self.key,
            self.value,
            batch,
            self.settings,
            dropout=self.weight_dropout if self.training else 0.0,
            bias=bias,
        )
        return self.finish(attended, hidden, operations)

    def finish(self, attended: Tensor, hidden: Tensor, operations: Operations) -> Tensor:
        """Compute what follows attention, token by token: (tokens, dim) each, to (tokens, dim)."""
        dropout = self.output_dropout if self.training else 0.0
        return operations.add_norm(attended, self.output, hidden, self.norm, dropout=dropout)


class FeedForward(nn.Module):
    """The two linear layers after attention, with their residual and normalization."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.up = Linear(config.hidden_size, config.intermediate_size)
        self.down = Linear(config.intermediate_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.activation = _ACTIVATIONS[config.hidden_act]
        self.dropout = config.hidden_dropout_prob

    def forward(self, hidden: Tensor, operations: Operations) -> Tensor:
        """(tokens, dim) to (tokens, dim)."""
        inner = operations.activate(hidden, self.up, self.activation, None)  # (tokens, inner)
        dropout = self.dropout if self.training else 0.0
        return operations.add_norm(inner, self.down, hidden, self.norm, dropout=dropout)


class EncoderLayer(nn.Module):
    """One layer: self-attention, then the feed-forward layers."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.feed_forward = FeedForward(config)

    def forward(self, hidden: Tensor, batch: PackedBatch, operations: Operations, bias: Tensor | None) -> Tensor:
        """(tokens, dim) to (tokens, dim); `bias` is added to the scores of attention."""
        changed: Tensor = self.feed_forward(self.attention(hidden, batch, operations, bias), operations)
        return changed

    def weights(self) -> LayerWeights:
        """The weights, as operations over whole layers take them."""
        attention, feed_forward = self.attention, self.feed_forward
        linears = (
            attention.query,
            attention.key,
            attention.value,
            attention.output,
            feed_forward.up,
            feed_forward.down,
        )
        query, key, value, output, up, down = (Affine(linear.weight, linear.bias) for linear in linears)
        return LayerWeights(query, key, value, output, norm_of(attention.norm), up, down, norm_of(feed_forward.norm))


def norm_of(module: nn.LayerNorm) -> Norm:
    """The weights of a normalization."""
    return Norm(module.weight, module.bias, module.eps)
