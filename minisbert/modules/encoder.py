"""The BERT-family encoder over a packed batch: no padding from the embeddings to the last layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import NamedTuple, TypeAlias, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import kernels
from ..errors import InputError
from ..kernels.weights import NO_DROPOUT, Affine, Dropouts, EncoderWeights, LayerWeights, Norm, Stamp, submodules
from ..packing import PackedBatch
from .architectures import EncoderConfig

InferenceEncoder: TypeAlias = Callable[[Tensor, Tensor, Tensor | None, PackedBatch], Tensor]


class _LaidOut(NamedTuple):
    """What `kernels.encoder` gave, and for what."""

    stamp: Stamp
    quantized: bool
    run: InferenceEncoder | None


_LAID_OUT: WeakKeyDictionary[nn.Module, _LaidOut] = WeakKeyDictionary()

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
        return LayerWeights(query, key, value, output, _norm(attention.norm), up, down, _norm(feed_forward.norm))

    def before(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values: (tokens, dim) each."""
        return self.attention.before(hidden)

    def after(self, attended: Tensor, hidden: Tensor) -> Tensor:
        """What attention gave and its input, (tokens, dim) each, to the layer's output."""
        output: Tensor = self.feed_forward(self.attention.after(attended, hidden))
        return output


class Encoder(nn.Module):
    """An encoder of the BERT family.

    Attributes:
        quantized: use products in int8 for inference, where the processor has them.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))
        buckets = config.relative_attention_buckets
        self.relative_attention_bias = Embedding(buckets, config.num_attention_heads) if buckets else None
        self.quantized = False
        self._compiled = False

    @property
    def token_types(self) -> bool:
        """Whether the two texts of a pair are told apart by the types of their tokens."""
        return self.config.type_vocab_size > 1

    @property
    def in_one(self) -> bool:
        """Whether it runs as one operation with derivatives, which is so on a GPU with Triton."""
        return self._whole() is not None

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.config.vocab_size

    def forward(self, batch: PackedBatch) -> Tensor:
        """Embed every token of `batch` in its text: (tokens, dim).

        Raises:
            InputError: a text is longer than the position embeddings allow.
        """
        if batch.max_length > self.config.max_tokens:
            raise InputError(
                f"got a text of {batch.max_length} tokens; this model has positions for {self.config.max_tokens}: "
                f"set max_seq_length to at most that"
            )
        if (fast := self._laid_out(batch)) is not None:
            return fast(batch.input_ids, self.embeddings.positions(batch), batch.token_types, batch)
        if batch.mask is None and (whole := self._whole()) is not None:
            return whole(replace(batch, positions=self.embeddings.positions(batch)))
        hidden: Tensor = self.embeddings(batch)
        bias = self._attention_bias(batch)
        for layer in self.layers:
            hidden = layer(hidden, batch, bias)
        return hidden

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Run what works token by token through torch.compile, for a block of code.

        Only the number of tokens differs between batches there, so one graph serves all. Attention stays as it is:
        its shapes are new in every batch.
        """
        parts = [(layer, name) for layer in self.layers for name in ("before", "after")]
        for layer, name in parts:
            setattr(layer, name, torch.compile(getattr(layer, name), dynamic=True))  # hides the method
        self._compiled = True
        try:
            yield
        finally:
            self._compiled = False
            for layer, name in parts:
                delattr(layer, name)

    def reset_parameters(self) -> None:
        """Draw fresh weights, as BERT's authors did: normal with the configured spread, no bias."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def weights(self) -> EncoderWeights:
        """The weights, as operations over the whole encoder take them."""
        embeddings = self.embeddings
        return EncoderWeights(
            embeddings.word.weight,
            embeddings.position.weight,
            None if embeddings.token_type is None else embeddings.token_type.weight,
            _norm(embeddings.norm),
            tuple(cast(EncoderLayer, layer).weights() for layer in self.layers),
            self.config.num_attention_heads,
        )

    def _laid_out(self, batch: PackedBatch) -> InferenceEncoder | None:
        """The encoder laid out for inference, where that is wanted and possible; it is made anew when a weight changed.

        It is no module and no state: it is neither saved nor copied with the encoder.
        """
        device = self.embeddings.word.weight.device.type
        if torch.is_grad_enabled() or self.training or torch.is_autocast_enabled(device):
            return None
        parts = submodules(self)[1:]
        if batch.mask is not None or not self._takes(parts):
            return None
        known = _LAID_OUT.get(self)
        if known is None or known.quantized != self.quantized or not known.stamp.holds(parts):
            weights = self.weights()
            if not weights.regular():
                return None
            known = _LaidOut(Stamp(parts), self.quantized, kernels.encoder(weights, quantized=self.quantized))
            _LAID_OUT[self] = known
        return known.run

    def _whole(self) -> Callable[[PackedBatch], Tensor] | None:
        """The encoder with derivatives as one operation, where there is such a one."""
        word = self.embeddings.word.weight
        if not kernels.on_gpu(word) or not self._takes(submodules(self)[1:]):
            return None
        weights = self.weights()
        encode = kernels.differentiable_encoder(weights) if weights.regular() else None
        if encode is None:
            return None
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        config = self.config
        hidden = config.hidden_dropout_prob
        dropouts = Dropouts(
            embeddings=hidden,
            attention_weights=config.attention_probs_dropout_prob,
            attention_output=hidden if config.attention_output_dropout else 0.0,
            output=hidden,
        )
        return partial(encode, dtype=dtype, dropouts=dropouts if self.training else NO_DROPOUT)

    def _takes(self, parts: list[nn.Module]) -> bool:
        """Whether operations over the whole encoder may stand for its modules, which are `parts`."""
        if not kernels.fast() or self.relative_attention_bias is not None or self._compiled:
            return False
        return all(map(_as_built, parts))

    def _attention_bias(self, batch: PackedBatch) -> Tensor | None:
        table = self.relative_attention_bias
        if table is None:
            return None
        buckets = relative_buckets(batch.max_length, table.num_embeddings, device=table.weight.device)
        bias: Tensor = table(buckets).permute(2, 0, 1)  # (heads, length, length)
        if batch.mask is None:
            return bias
        # One for each padded text, as the reference has it: that decides the order in which gradients add up.
        return bias.expand(batch.texts, -1, -1, -1).contiguous()


_PARTS = frozenset(
    {Linear, nn.Linear, Embedding, nn.Embedding, nn.LayerNorm, nn.ModuleList}
    | {Embeddings, SelfAttention, FeedForward, EncoderLayer}
)


def _as_built(part: nn.Module) -> bool:
    """Whether a part of the encoder does what its weights say: nothing was put in its place or hung on it."""
    if type(part) not in _PARTS or part._forward_hooks or part._forward_pre_hooks or part._buffers:
        return False
    return "forward" not in vars(part) and getattr(part, "activation", F.gelu) is F.gelu


def _norm(module: nn.LayerNorm) -> Norm:
    return Norm(module.weight, module.bias, module.eps)


def relative_buckets(length: int, buckets: int, *, device: torch.device, max_distance: int = 128) -> Tensor:
    """Bucket of the distance between every two positions: int64, (length, length).

    Half of the buckets are for each direction; within a direction the first half holds one distance each and the
    rest grow logarithmically up to `max_distance` (Raffel et al. 2020, section 2.1; used by MPNet).
    """
    place = torch.arange(length, device=device)
    distance = place[None, :] - place[:, None]
    one_way = buckets // 2
    exact = one_way // 2
    size = distance.abs()
    growth = torch.log(size.float().clamp(min=1) / exact) / math.log(max_distance / exact) * (one_way - exact)
    far = (exact + growth.long()).clamp(max=one_way - 1)
    return torch.where(size < exact, size, far) + (distance > 0).long() * one_way
