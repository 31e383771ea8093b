"""The BERT-family encoder over a packed batch: no padding from the embeddings to the last layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeAlias, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import kernels
from ..errors import InputError
from ..kernels.weights import NO_DROPOUT, Dropouts, EncoderWeights, Stamp, submodules
from ..packing import PackedBatch, PaddedBatch
from .architectures import EncoderConfig
from .layers import Embedding, Embeddings, EncoderLayer, FeedForward, Linear, SelfAttention, norm_of

InferenceEncoder: TypeAlias = Callable[[Tensor, Tensor, Tensor | None, PackedBatch], Tensor]


class _LaidOut(NamedTuple):
    """What `kernels.encoder` gave, and for what."""

    stamp: Stamp
    run: InferenceEncoder | None


_LAID_OUT: WeakKeyDictionary[nn.Module, _LaidOut] = WeakKeyDictionary()


class Encoder(nn.Module):
    """An encoder of the BERT family."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))
        buckets = config.relative_attention_buckets
        self.relative_attention_bias = Embedding(buckets, config.num_attention_heads) if buckets else None
        self._compiled = False
        self._native = kernels.native.Binding("activation", "settings", "eps")

    @property
    def token_types(self) -> bool:
        """Whether the two texts of a pair are told apart by the types of their tokens."""
        return self.config.type_vocab_size > 1

    @property
    def in_one(self) -> bool:
        """Whether it runs as one operation with derivatives, which is so on a GPU with Triton."""
        return self._whole() is not None

    @property
    def quantized(self) -> bool:
        """True if linear layers have int8 weights."""
        return any(isinstance(module, kernels.QuantizedLinear) for module in self.modules())

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
        if (native := self._native_encoder(batch)) is not None:
            return native(batch.input_ids, self.embeddings.positions(batch), batch.token_types, batch)
        if (fast := self._laid_out(batch)) is not None:
            return fast(batch.input_ids, self.embeddings.positions(batch), batch.token_types, batch)
        if not isinstance(batch, PaddedBatch) and (whole := self._whole()) is not None:
            return whole(replace(batch, positions=self.embeddings.positions(batch)))
        word = self.embeddings.word.weight
        operations = kernels.choose(word, batch, compiled=self._compiled, quantized=self.quantized)
        hidden: Tensor = self.embeddings(batch, operations)
        bias = self._attention_bias(batch)
        for layer in self.layers:
            hidden = layer(hidden, batch, operations, bias)
        return hidden

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Run what follows attention in each layer through torch.compile, for a block of code.

        Only the number of tokens differs between batches there, so one graph serves all layers and batches. Attention
        is not compiled: its shapes are new in every batch.
        """
        parts = [(layer.attention, "finish") for layer in self.layers] + [
            (layer.feed_forward, "forward") for layer in self.layers
        ]
        for part, name in parts:
            setattr(part, name, torch.compile(getattr(part, name), dynamic=True))  # hides the method
        self._compiled = True
        try:
            yield
        finally:
            self._compiled = False
            for part, name in parts:
                delattr(part, name)

    def reset_parameters(self) -> None:
        """Draw fresh weights, as BERT's authors did: normal with the configured spread, no bias."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def quantize(self) -> None:
        """Put int8 weights in place of those of the linear layers; embeddings, normalizations and biases stay."""
        for parent in list(self.layers.modules()):
            for name, module in parent.named_children():
                if isinstance(module, nn.Linear):
                    setattr(parent, name, kernels.QuantizedLinear.of(module))

    def weights(self) -> EncoderWeights:
        """The weights, as operations over the whole encoder take them."""
        embeddings = self.embeddings
        return EncoderWeights(
            embeddings.word.weight,
            embeddings.position.weight,
            None if embeddings.token_type is None else embeddings.token_type.weight,
            norm_of(embeddings.norm),
            tuple(cast(EncoderLayer, layer).weights() for layer in self.layers),
            self.config.num_attention_heads,
        )

    def _native_encoder(self, batch: PackedBatch) -> kernels.native.NativeEncoder | None:
        """Return the whole encoder in C++, or None if it is not built or does not compute what this pass needs."""
        if torch.is_grad_enabled() or self.training or self._compiled or isinstance(batch, PaddedBatch):
            return None
        if torch.is_autocast_enabled("cpu") or not kernels.fast():
            return None
        return self._native(self, self._bert_modules)

    def _bert_modules(self) -> kernels.native.EncoderModules | None:
        """Return the modules with weights, or None if this is not BERT's way to compute, or something is patched."""
        embeddings, layers = self.embeddings, cast("list[EncoderLayer]", list(self.layers))
        parts = (embeddings, self.layers, *(part for layer in layers for part in (layer, *layer.children())))
        settings = {layer.attention.settings for layer in layers}
        if self.relative_attention_bias is not None or not all(map(_as_built, parts)) or len(settings) != 1:
            return None
        (attention,) = settings
        if not attention.bidirectional:
            return None
        return kernels.native.EncoderModules(
            *(embeddings.word, embeddings.position, embeddings.token_type, embeddings.norm),
            tuple(map(_layer_modules, layers)),
            attention.heads,
        )

    def _laid_out(self, batch: PackedBatch) -> InferenceEncoder | None:
        """The encoder laid out for inference, where that is wanted and possible; it is made anew when a weight changed.

        It is no module and no state: it is neither saved nor copied with the encoder.
        """
        device = self.embeddings.word.weight.device.type
        if device == "cpu" or torch.is_grad_enabled() or self.training or torch.is_autocast_enabled(device):
            return None
        parts = submodules(self)[1:]
        if isinstance(batch, PaddedBatch) or not self._takes(parts):
            return None
        known = _LAID_OUT.get(self)
        if known is None or not known.stamp.holds(parts):
            weights = self.weights()
            if not weights.regular():
                return None
            known = _LaidOut(Stamp(parts), kernels.encoder(weights))
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
        if not kernels.fast() or self.relative_attention_bias is not None:
            return False
        return all(map(_as_built, parts))

    def _attention_bias(self, batch: PackedBatch) -> Tensor | None:
        table = self.relative_attention_bias
        if table is None:
            return None
        buckets = relative_buckets(batch.max_length, table.num_embeddings, device=table.weight.device)
        bias: Tensor = table(buckets).permute(2, 0, 1)  # (heads, length, length)
        return bias


_PARTS = frozenset(
    {Linear, nn.Linear, Embedding, nn.Embedding, nn.LayerNorm, nn.ModuleList}
    | {Embeddings, SelfAttention, FeedForward, EncoderLayer}
)


# Methods that something else may stand for: what torch.compile makes of them, for one.
_REPLACEABLE = frozenset({"forward", "finish"})


def _as_built(part: nn.Module) -> bool:
    """Whether a part of the encoder does what its weights say: nothing was put in its place or hung on it."""
    if type(part) not in _PARTS or part._forward_hooks or part._forward_pre_hooks or part._buffers:
        return False
    return _REPLACEABLE.isdisjoint(vars(part)) and getattr(part, "activation", F.gelu) is F.gelu


def _layer_modules(layer: EncoderLayer) -> kernels.native.LayerModules:
    attention, feed_forward = layer.attention, layer.feed_forward
    return kernels.native.LayerModules(
        *(attention.query, attention.key, attention.value, attention.output, attention.norm),
        *(feed_forward.up, feed_forward.down, feed_forward.norm),
    )


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
