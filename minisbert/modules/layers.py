"""The parts of a BERT-family encoder: embeddings, attention, the layers after it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import kernels
from ..kernels.weights import Affine, LayerWeights, Norm
from ..packing import PackedBatch
from .architectures import EncoderConfig

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
}


class Linear(nn.Linear):
    """A linear layer whose product goes through the kernel dispatch."""

    def reset_parameters(self) -> None:
        """Nothing: weights are loaded, or drawn by `Encoder.reset_parameters`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # nn.Linear's name for it
        """(tokens, in) to (tokens, out)."""
        return kernels.linear(input, self.weight, self.bias)


class Embedding(nn.Embedding):
    """An embedding table. torch's own draws weights when it is made, and imports its compiler on the meta device."""

    def reset_parameters(self) -> None:
        """Nothing: weights are loaded, or drawn by `Encoder.reset_parameters`."""


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

    def forward(self, batch: PackedBatch) -> Tensor:
        """Embed the tokens of `batch`: (tokens, dim)."""
        hidden = self._padded_sum(batch) if batch.mask is not None else self._sum(batch)
        return F.dropout(self.norm(hidden), self.dropout, self.training)

    def _sum(self, batch: PackedBatch) -> Tensor:
        hidden: Tensor = self.word(batch.input_ids)
        if self.token_type is not None:
            types = batch.token_types
            hidden = hidden + (self.token_type.weight[0] if types is None else self.token_type(types))
        return hidden + self.position(self.positions(batch))  # type: ignore[no-any-return]

    def _padded_sum(self, batch: PackedBatch) -> Tensor:
        """The sum as the reference takes it: the shapes of the look-ups decide the order in which gradients add up."""
        ids = batch.input_ids.view(batch.texts, -1)  # (texts, length)
        hidden: Tensor = self.word(ids)
        if self.token_type is not None:
            hidden = hidden + self.token_type(torch.zeros_like(ids))
        places = self.positions(batch).view(batch.texts, -1)
        hidden = hidden + self.position(places if self.offset else places[:1])
        return hidden.view(batch.tokens, -1)

    def positions(self, batch: PackedBatch) -> Tensor:
        """Row of the position table for each token: int64, (tokens,)."""
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
    """The linear layers around multi-head self-attention, with its residual and normalization."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.query, self.key, self.value, self.output = (Linear(dim, dim) for _ in range(4))
        self.norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.heads = config.num_attention_heads
        self.weight_dropout = config.attention_probs_dropout_prob
        self.output_dropout = config.hidden_dropout_prob if config.attention_output_dropout else 0.0

    def before(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values: (tokens, dim) each."""
        return self.query(hidden), self.key(hidden), self.value(hidden)

    def after(self, attended: Tensor, hidden: Tensor) -> Tensor:
        """What attention gave, (tokens, dim), and its input to (tokens, dim)."""
        output: Tensor = self.norm(F.dropout(self.output(attended), self.output_dropout, self.training) + hidden)
        return output


class FeedForward(nn.Module):
    """The two linear layers after attention, with their residual and normalization."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.up = Linear(config.hidden_size, config.intermediate_size)
        self.down = Linear(config.intermediate_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.activation = _ACTIVATIONS[config.hidden_act]
        self.exact_gelu = config.hidden_act == "gelu"
        self.dropout = config.hidden_dropout_prob

    def forward(self, hidden: Tensor) -> Tensor:
        """(tokens, dim) to (tokens, dim)."""
        changed = self.down(self.activation(self.up(hidden)))
        output: Tensor = self.norm(F.dropout(changed, self.dropout, self.training) + hidden)
        return output


class EncoderLayer(nn.Module):
    """One layer: attention within each text between `before` and `after`, which see one token at a time."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.feed_forward = FeedForward(config)

    def forward(self, hidden: Tensor, batch: PackedBatch, bias: Tensor | None) -> Tensor:
        """(tokens, dim) to (tokens, dim); `bias` is as for `kernels.attention`."""
        compiled = "before" in vars(self)
        if bias is None and batch.mask is None and self.feed_forward.exact_gelu and not compiled:
            operations = kernels.fused(hidden, heads=self.attention.heads)
            if operations is not None:
                return self._fused(hidden, batch, operations)
        query, key, value = self.before(hidden)
        attended = kernels.attention(
            query,
            key,
            value,
            batch,
            heads=self.attention.heads,
            dropout=self.attention.weight_dropout if self.training else 0.0,
            bias=bias,
        )
        return self.after(attended, hidden)

    def _fused(self, hidden: Tensor, batch: PackedBatch, operations: ModuleType) -> Tensor:
        """The layer with query, key and value in one product, and one pass over the tokens between products."""
        attention, feed_forward = self.attention, self.feed_forward
        weight_dropout, output_dropout, dropout = (
            probability if self.training else 0.0
            for probability in (attention.weight_dropout, attention.output_dropout, feed_forward.dropout)
        )

        def linear(x: Tensor, *layers: Linear) -> Tensor:
            if len(layers) == 1:
                return kernels.product(x, layers[0].weight, layers[0].bias)
            weights: list[Tensor] = [layer.weight for layer in layers]
            biases: list[Tensor] = [layer.bias for layer in layers]
            return kernels.product(x, torch.cat(weights), torch.cat(biases))

        def add_norm(x: Tensor, residual: Tensor, norm: nn.LayerNorm, dropout: float) -> Tensor:
            output: Tensor = operations.add_norm(x, residual, norm.weight, norm.bias, eps=norm.eps, dropout=dropout)
            return output

        qkv = linear(hidden, attention.query, attention.key, attention.value)  # (tokens, 3 * dim)
        attended = operations.attention_qkv(qkv, batch, heads=attention.heads, dropout=weight_dropout)
        hidden = add_norm(linear(attended, attention.output), hidden, attention.norm, output_dropout)
        raised = operations.gelu(linear(hidden, feed_forward.up))
        return add_norm(linear(raised, feed_forward.down), hidden, feed_forward.norm, dropout)

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

    def before(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values: (tokens, dim) each."""
        return self.attention.before(hidden)

    def after(self, attended: Tensor, hidden: Tensor) -> Tensor:
        """What attention gave and its input, (tokens, dim) each, to the layer's output."""
        output: Tensor = self.feed_forward(self.attention.after(attended, hidden))
        return output


def norm_of(module: nn.LayerNorm) -> Norm:
    """The weights of a normalization."""
    return Norm(module.weight, module.bias, module.eps)
