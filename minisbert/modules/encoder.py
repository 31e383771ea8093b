"""The BERT-family encoder over a packed batch: no padding from the embeddings to the last layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import kernels
from ..cuda_graphs import GpuEncoder
from ..errors import InputError
from ..kernels import AttentionSettings
from ..packing import PackedBatch
from .architectures import EncoderConfig
from .layers import Embedding, Embeddings, EncoderLayer, FeedForward, Linear, SelfAttention, make_norm

_GRAPHS: WeakKeyDictionary[nn.Module, GpuEncoder] = WeakKeyDictionary()  # neither saved nor copied with an encoder


class Encoder(nn.Module):
    """An encoder of the BERT family."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(EncoderLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = make_norm(config) if config.norm_first else None  # after the last layer
        buckets = config.relative_attention_buckets
        self.relative_attention_bias = Embedding(buckets, config.num_attention_heads) if buckets else None
        self._compiled = False
        self._native = kernels.native.Binding("activation", "settings", "eps")

    @property
    def token_types(self) -> bool:
        """Whether the two texts of a pair are told apart by the types of their tokens."""
        return self.config.type_vocab_size > 1

    @property
    def recordable(self) -> bool:
        """True if a CUDA graph can record a forward and backward pass, which is so on a GPU with Triton."""
        if not self.config.layers_as_in_bert or not kernels.fast():
            return False
        operations = kernels.choose(self.embeddings.word.weight, compiled=self._compiled)
        attention = AttentionSettings(self.config.num_attention_heads)
        return operations.recordable(self.config.hidden_size, attention) and all(map(_as_built, submodules(self)[1:]))

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
        word = self.embeddings.word.weight
        if not self.training and not self._compiled and kernels.whole_encoder_may_run(word, batch):
            if (native := self._native(self, self._bert_modules)) is not None:
                return native(batch.input_ids, self.embeddings.positions(batch), batch.token_types, batch)
            if kernels.on_gpu(word) and self.recordable:
                if self not in _GRAPHS:
                    _GRAPHS[self] = GpuEncoder()
                return _GRAPHS[self](self._embed, submodules(self)[1:], batch)
        return self._embed(batch)

    def _embed(self, batch: PackedBatch) -> Tensor:
        """Run the layers: (tokens, dim)."""
        operations = kernels.choose(self.embeddings.word.weight, batch, compiled=self._compiled)
        hidden: Tensor = self.embeddings(batch, operations)
        bias = self._attention_bias(batch)
        for layer in self.layers:
            hidden = layer(hidden, batch, operations, bias)
        return hidden if self.norm is None else operations.norm(hidden, self.norm)

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
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def quantize(self) -> None:
        """Put int8 weights in place of those of the linear layers; embeddings, normalizations and biases stay."""
        for parent in list(self.layers.modules()):
            for name, module in parent.named_children():
                if isinstance(module, nn.Linear):
                    setattr(parent, name, kernels.QuantizedLinear.of(module))

    def _bert_modules(self) -> kernels.native.EncoderModules | None:
        """Return the modules with weights, or None if this is not BERT's way to compute, or something is patched."""
        embeddings, layers = self.embeddings, cast("list[EncoderLayer]", list(self.layers))
        parts = (embeddings, self.layers, *(part for layer in layers for part in (layer, *layer.children())))
        kinds = {layer.attention.settings for layer in layers}
        position, attention = embeddings.position, next(iter(kinds), None)
        if position is None or attention is None or len(kinds) > 1 or not attention.bidirectional:
            return None
        if not self.config.layers_as_in_bert or not all(map(_as_built, parts)):
            return None
        return kernels.native.EncoderModules(
            *(embeddings.word, position, embeddings.token_type, embeddings.norm),
            tuple(map(_layer_modules, layers)),
            attention.heads,
        )

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


def submodules(module: nn.Module) -> list[nn.Module]:
    """Return a module and all modules within it, one within several as often: `modules()`, but ten times as fast."""
    found = [module]
    for part in found:  # which grows meanwhile
        found.extend(child for child in part._modules.values() if child is not None)
    return found


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
