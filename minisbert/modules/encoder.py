"""The BERT-family encoder over a packed batch: no padding from the embeddings to the last layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import kernels
from ..cuda_graphs import GpuEncoder
from ..errors import InputError
from ..kernels import AttentionSettings, QuantizedLinear, native, submodules
from ..packing import PackedBatch, PaddedBatch
from .architectures import EncoderConfig
from .layers import Embedding, Embeddings, EncoderLayer, FeedForward, Linear, SelfAttention, make_norm

_Module = TypeVar("_Module", bound=nn.Module)

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
        self._native = native.Binding("activation", "eps", "norm_first", "settings")

    @property
    def token_types(self) -> bool:
        """True if token types distinguish the two texts of a pair."""
        return self.config.type_vocab_size > 1

    @property
    def recordable(self) -> bool:
        """True if a CUDA graph can record a forward and backward pass, which is so on a GPU with Triton."""
        operations = kernels.choose(self.embeddings.word.weight, compiled=self._compiled)
        attention = AttentionSettings(self.config.num_attention_heads)
        return (
            operations.recordable(self.config.hidden_size, attention)
            and kernels.fast()
            and self.config.layers_as_in_bert
            and all(map(_as_built, submodules(self)[1:]))
        )

    @property
    def quantized(self) -> bool:
        """True if linear layers have int8 weights."""
        return any(isinstance(module, QuantizedLinear) for module in submodules(self))

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
        if (whole := self._in_native_code(batch)) is not None:
            return whole(batch.input_ids, self.embeddings.positions(batch), batch.token_types, batch)
        if self._runs_as_graph(batch):
            graphs = _GRAPHS.get(self) or _GRAPHS.setdefault(self, GpuEncoder())
            return graphs(self._embed, submodules(self)[1:], batch)
        return self._embed(batch)

    def _embed(self, batch: PackedBatch) -> Tensor:
        word = self.embeddings.word.weight
        operations = kernels.choose(word, batch, compiled=self._compiled, quantized=self.quantized)
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

    def align_weights(self) -> None:
        """Copy the weights of the layers to aligned memory, those of query, key and value side by side.

        Products read them faster there, and one product can take all three. Nothing depends on it.
        """
        for layer in cast("list[EncoderLayer]", list(self.layers)):
            joined = (layer.attention.query, layer.attention.key, layer.attention.value)
            others = [module for module in submodules(layer) if isinstance(module, nn.Linear) and module not in joined]
            for modules in (joined, *((module,) for module in others)):
                for name in ("weight", "bias"):
                    values = [value for module in modules if (value := getattr(module, name)) is not None]
                    if len(values) == len(modules):
                        joined_values = torch.cat([value.data for value in values])
                        copies = torch.split(joined_values, [value.shape[0] for value in values])
                        for value, copy in zip(values, copies, strict=True):
                            value.data = copy

    def quantize(self) -> None:
        """Put int8 weights in place of the floats of all linear layers; embeddings, norms and biases stay floats."""
        for parent in submodules(self.layers):
            for name, module in parent.named_children():
                if isinstance(module, nn.Linear):
                    setattr(parent, name, QuantizedLinear.of(module))

    def _in_native_code(self, batch: PackedBatch) -> native.NativeEncoder | None:
        """Return the whole encoder in C++, or None if it is not built or does not compute what this pass needs."""
        if torch.is_grad_enabled() or self.training or self._compiled or isinstance(batch, PaddedBatch):
            return None
        if torch.is_autocast_enabled("cpu") or not kernels.fast():
            return None
        return self._native(self, self._bert_modules)

    def _bert_modules(self) -> native.EncoderModules | None:
        """Return the modules with weights, or None if this does not compute what BERT does, or a part is replaced."""
        embeddings, layers = self.embeddings, list(self.layers)
        if not (self.config.layers_as_in_bert and layers and _unchanged(embeddings, Embeddings)):
            return None
        found, heads = [], set()
        for layer in layers:
            if not (
                _unchanged(layer, EncoderLayer)
                and _unchanged(attention := layer.attention, SelfAttention)
                and _unchanged(feed_forward := layer.feed_forward, FeedForward)
                and attention.settings.bidirectional
                and not (attention.norm_first or feed_forward.norm_first)
                and feed_forward.gate is None
                and feed_forward.activation is F.gelu
            ):
                return None
            heads.add(attention.settings.heads)
            found.append(
                native.LayerModules(
                    *(attention.query, attention.key, attention.value, attention.output, attention.norm),
                    *(feed_forward.up, feed_forward.down, feed_forward.norm),
                )
            )
        position = embeddings.position
        if len(heads) > 1 or position is None:
            return None
        tables = (embeddings.word, position, embeddings.token_type)
        return native.EncoderModules(*tables, embeddings.norm, tuple(found), heads.pop())

    def _runs_as_graph(self, batch: PackedBatch) -> bool:
        """Return True if this pass may run as a CUDA graph: on a GPU, in inference."""
        word = self.embeddings.word.weight
        return (
            kernels.on_gpu(word)
            and not (torch.is_grad_enabled() or self.training or torch.is_autocast_enabled(word.device.type))
            and not isinstance(batch, PaddedBatch)
            and self.recordable
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


# Methods that an instance may replace, as `Encoder.compiled` does.
_REPLACEABLE = frozenset({"forward", "finish"})


def _as_built(part: nn.Module) -> bool:
    """Return True if a part of the encoder computes what its weights say: not replaced, patched or hooked."""
    if type(part) not in _PARTS or part._forward_hooks or part._forward_pre_hooks or part._buffers:
        return False
    return _REPLACEABLE.isdisjoint(vars(part)) and getattr(part, "activation", F.gelu) is F.gelu


def _unchanged(part: nn.Module, kind: type[_Module]) -> TypeGuard[_Module]:
    """Return True if a part is of exactly this class, without hooks or methods of its own."""
    return type(part) is kind and not (part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part))


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
