"""The BERT-family encoder over a packed batch: no padding from the embeddings to the last layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import kernels
from ..cuda_graphs import GpuEncoder
from ..errors import InputError
from ..kernels import AttentionSettings
from ..kernels.weights import EncoderWeights, Stamp, submodules
from ..packing import PackedBatch, PaddedBatch
from .architectures import EncoderConfig
from .layers import Embedding, Embeddings, EncoderLayer, FeedForward, Linear, SelfAttention, make_norm, norm_of

InferenceEncoder: TypeAlias = Callable[[Tensor, Tensor, Tensor | None, PackedBatch], Tensor]


class _LaidOut(NamedTuple):
    """What `kernels.encoder` gave, and for what."""

    stamp: Stamp
    quantized: bool
    run: InferenceEncoder | None


_LAID_OUT: WeakKeyDictionary[nn.Module, _LaidOut] = WeakKeyDictionary()
_GRAPHS: WeakKeyDictionary[nn.Module, GpuEncoder] = WeakKeyDictionary()  # neither saved nor copied with an encoder


class Encoder(nn.Module):
    """An encoder of the BERT family.

    Attributes:
        quantized: use products in int8 for inference, where the processor has them.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(EncoderLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = make_norm(config) if config.norm_first else None  # after the last layer
        buckets = config.relative_attention_buckets
        self.relative_attention_bias = Embedding(buckets, config.num_attention_heads) if buckets else None
        self.quantized = False
        self._compiled = False

    @property
    def token_types(self) -> bool:
        """Whether the two texts of a pair are told apart by the types of their tokens."""
        return self.config.type_vocab_size > 1

    @property
    def recordable(self) -> bool:
        """True if a CUDA graph can record a forward and backward pass, which is so on a GPU with Triton."""
        if self.relative_attention_bias is not None or not kernels.fast():
            return False
        operations = kernels.choose(self.embeddings.word.weight, compiled=self._compiled)
        attention = AttentionSettings(self.config.num_attention_heads)
        return operations.recordable(self.config.hidden_size, attention) and all(map(_as_built, submodules(self)[1:]))

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
        if self._runs_as_graph(batch):
            if self not in _GRAPHS:
                _GRAPHS[self] = GpuEncoder()
            return _GRAPHS[self](self._embed, submodules(self)[1:], batch)
        return self._embed(batch)

    def _embed(self, batch: PackedBatch) -> Tensor:
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

    def weights(self) -> EncoderWeights:
        """The weights, as operations over the whole encoder take them."""
        embeddings = self.embeddings
        return EncoderWeights(
            embeddings.word.weight,
            cast(nn.Embedding, embeddings.position).weight,
            None if embeddings.token_type is None else embeddings.token_type.weight,
            norm_of(embeddings.norm),
            tuple(cast(EncoderLayer, layer).weights() for layer in self.layers),
            self.config.num_attention_heads,
        )

    def _laid_out(self, batch: PackedBatch) -> InferenceEncoder | None:
        """The encoder laid out for inference, where that is wanted and possible; it is made anew when a weight changed.

        It is no module and no state: it is neither saved nor copied with the encoder.
        """
        device = self.embeddings.word.weight.device.type
        if device != "cpu" or torch.is_grad_enabled() or self.training or torch.is_autocast_enabled(device):
            return None
        parts = submodules(self)[1:]
        if isinstance(batch, PaddedBatch) or not self._takes(parts):
            return None
        known = _LAID_OUT.get(self)
        if known is None or known.quantized != self.quantized or not known.stamp.holds(parts):
            weights = self.weights()
            if not weights.regular():
                return None
            known = _LaidOut(Stamp(parts), self.quantized, kernels.encoder(weights, quantized=self.quantized))
            _LAID_OUT[self] = known
        return known.run

    def _runs_as_graph(self, batch: PackedBatch) -> bool:
        """Return True if this pass may run as a CUDA graph: on a GPU, in inference."""
        word = self.embeddings.word.weight
        return (
            kernels.on_gpu(word)
            and not (torch.is_grad_enabled() or self.training or torch.is_autocast_enabled(word.device.type))
            and not isinstance(batch, PaddedBatch)
            and self.recordable
        )

    def _takes(self, parts: list[nn.Module]) -> bool:
        """Whether operations over the whole encoder may stand for its modules, which are `parts`."""
        if not kernels.fast() or not self.config.layers_as_in_bert:
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
