"""The BERT-family encoder over a packed batch: no padding from the embeddings to the last layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import kernels
from ..errors import InputError, check_count
from ..kernels import (
    AttentionSettings,
    LayerInTraining,
    Operations,
    Projections,
    QuantizedLinear,
    TrainingMemory,
    activation_name,
    input_factors,
    native,
    submodules,
)
from ..packing import PackedBatch
from .architectures import EncoderConfig
from .layers import Embedding, Embeddings, EncoderLayer, FeedForward, Linear, SelfAttention, make_norm

if TYPE_CHECKING:
    from ..cuda_graphs import GpuEncoder

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
        self._compiled = self._recomputes = False
        self._native = native.Binding("activation", "eps", "norm_first", "settings")
        self._memory = TrainingMemory()

    @property
    def token_types(self) -> bool:
        """True if token types distinguish the two texts of a pair."""
        return self.config.type_vocab_size > 1

    @property
    def recordable(self) -> bool:
        """True if a CUDA graph can record a forward and backward pass, which is so on a GPU with Triton."""
        attention = self._bert_attention()
        operations = kernels.choose(self.embeddings.word.weight, compiled=self._compiled)
        return (
            attention is not None and not self._recomputes and operations.recordable(self.config.hidden_size, attention)
        )

    @property
    def quantized(self) -> bool:
        """True if linear layers have int8 weights."""
        return any(isinstance(module, QuantizedLinear) for module in submodules(self))

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.embeddings.word.num_embeddings

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of word embeddings, under the name that transformers has for it."""
        return self.embeddings.word

    def resize_token_embeddings(self, new_num_tokens: int | None = None) -> nn.Embedding:
        """Give the table of word embeddings another number of rows; new ones start as the mean of the old ones.

        Args:
            new_num_tokens: number of rows, such as `len(model[0].tokenizer)` after tokens were added to it; None to
                leave the table as it is.

        Returns:
            The table.

        Raises:
            ConfigError: it is no whole number of at least 1.
        """
        word = self.embeddings.word
        if new_num_tokens is None or new_num_tokens == word.num_embeddings:
            return word
        new_num_tokens = check_count(new_num_tokens, "new_num_tokens")
        old = word.weight.detach()
        rows = old.mean(0, keepdim=True).repeat(max(new_num_tokens - len(old), 0), 1)
        resized = Embedding(new_num_tokens, old.shape[1], device=old.device, dtype=old.dtype)
        resized.weight = nn.Parameter(torch.cat([old[:new_num_tokens], rows]), requires_grad=word.weight.requires_grad)
        self.embeddings.word = resized
        return resized

    def forward(self, batch: PackedBatch, layers: list[Tensor] | None = None) -> Tensor:
        """Embed every token of `batch` in its text: (tokens, dim).

        Args:
            batch: the texts.
            layers: filled with the embeddings of words and what each layer makes of them; the last are the result.

        Raises:
            InputError: a text is longer than the position embeddings allow.
        """
        most = self.config.max_tokens
        if most is not None and batch.max_length > most:
            raise InputError(
                f"got a text of {batch.max_length} tokens; this model has positions for {most}: "
                f"set max_seq_length to at most that"
            )
        word = self.embeddings.word.weight
        if layers is not None:
            return self._embed(batch, layers)
        if not self.training and not self._compiled and kernels.whole_encoder_may_run(word, batch):
            if kernels.on_gpu(word):
                if self.recordable:
                    from ..cuda_graphs import GpuEncoder

                    graphs = _GRAPHS.get(self) or _GRAPHS.setdefault(self, GpuEncoder())
                    return graphs(self._embed, submodules(self)[1:], batch)
            elif (whole := self._native(self, self._native_modules)) is not None:
                return whole(batch.input_ids, self.embeddings.positions(batch), batch.token_types, batch)
        return self._embed(batch)

    def _embed(self, batch: PackedBatch, layers: list[Tensor] | None = None) -> Tensor:
        """Run the layers: (tokens, dim); `layers` is filled as in `forward`."""
        operations = kernels.choose(self.embeddings.word.weight, batch, compiled=self._compiled)
        hidden: Tensor = self.embeddings(batch, operations)
        one_by_one = layers is not None or self._recomputes or not torch.is_grad_enabled()
        attention = None if one_by_one else self._bert_attention()
        if attention is not None:
            whole = operations.layers(hidden, self._layers_in_training(), attention.heads, batch, self._memory)
            if whole is not None:
                return whole
        bias = self._attention_bias(batch)
        for layer in self.layers:
            if layers is not None:
                layers.append(hidden)
            hidden = self._run(layer, hidden, batch, operations, bias)
        hidden = hidden if self.norm is None else operations.norm(hidden, self.norm)
        if layers is not None:
            layers.append(hidden)
        return hidden

    def _run(
        self, layer: nn.Module, hidden: Tensor, batch: PackedBatch, operations: Operations, bias: Tensor | None
    ) -> Tensor:
        if not (self._recomputes and self.training):
            output: Tensor = layer(hidden, batch, operations, bias)
            return output
        from .recompute import recomputed

        inputs = (hidden,) if bias is None else (hidden, bias)
        return recomputed(
            lambda hidden, bias=None: layer(hidden, batch, operations, bias), *inputs, device=hidden.device
        )

    def train(self, mode: bool = True) -> Encoder:
        """Set the mode, as torch does; what training keeps from step to step is given back at its end."""
        if not mode:
            self._memory.release()
        super().train(mode)
        return self

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

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Keep only the inputs of each layer in training, and compute it again in backward, for a block of code."""
        before, self._recomputes = self._recomputes, True
        try:
            yield
        finally:
            self._recomputes = before

    def recompute(self, enabled: bool) -> None:
        """Let training keep only the inputs of layers from now on, as `recomputing` does, or no longer."""
        self._recomputes = enabled

    def reset_parameters(self) -> None:
        """Draw fresh weights, as BERT's authors did: normal with the configured spread, no bias."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def align_weights(self) -> None:
        """Copy all weights to memory of their own, those of the layers' products into one aligned block.

        Products read them faster there, and one product can take query, key and value, which are side by side. Nothing
        depends on it.
        """
        groups = []
        for layer in cast("list[EncoderLayer]", list(self.layers)):
            joined = (layer.attention.query, layer.attention.key, layer.attention.value)
            others = [module for module in submodules(layer) if isinstance(module, nn.Linear) and module not in joined]
            for modules in (joined, *((module,) for module in others)):
                for name in ("weight", "bias"):
                    values = [value for module in modules if (value := getattr(module, name)) is not None]
                    if len(values) == len(modules):
                        groups.append(values)
        in_block = {id(value) for group in groups for value in group}
        _move_together(groups)
        for value in (*self.parameters(), *self.buffers()):
            if id(value) not in in_block:
                _move_together([[value]])

    def quantize(self, examples: PackedBatch) -> None:
        """Put int8 weights in place of the floats of all linear layers; embeddings, norms and biases stay floats.

        Args:
            examples: texts by whose inputs to each layer its weights are scaled.
        """
        quantized: dict[nn.Module, QuantizedLinear] = {}
        for module, factors in self.input_factors(examples).items():
            quantized[module] = QuantizedLinear.of(module, factors)
        for parent in submodules(self.layers):
            for name, child in parent.named_children():
                if child in quantized:
                    setattr(parent, name, quantized[child])

    def input_factors(self, examples: PackedBatch) -> dict[nn.Linear, Tensor]:
        """Return by what the inputs of each linear layer are multiplied before they are quantized: float32, (in,).

        Layers that take the same inputs have the same factors.

        Args:
            examples: texts by whose inputs the factors are found.
        """
        inputs: dict[nn.Module, Tensor] = {}
        linears = [module for module in submodules(self.layers) if isinstance(module, nn.Linear)]
        hooks = [
            module.register_forward_pre_hook(lambda module, x: inputs.update({module: x[0]})) for module in linears
        ]
        with torch.no_grad(), kernels.use("reference"):
            self._embed(examples)
        for hook in hooks:
            hook.remove()
        taking: dict[int, list[nn.Linear]] = {}
        for module in linears:
            taking.setdefault(id(inputs[module]), []).append(module)
        found: dict[nn.Linear, Tensor] = {}
        for modules in taking.values():
            factors = input_factors(inputs[modules[0]], [module.weight.detach() for module in modules])
            found.update(dict.fromkeys(modules, factors))
        return found

    def _bert_attention(self) -> AttentionSettings | None:
        """Return the attention of all layers, or None if this does not compute what BERT does or a part is changed."""
        if not self.config.layers_as_in_bert or not all(map(_as_in_bert, submodules(self)[1:])):
            return None
        kinds = {layer.attention.settings for layer in cast("Iterable[EncoderLayer]", self.layers)}
        return kinds.pop() if len(kinds) == 1 else None

    def _native_modules(self) -> native.EncoderModules | None:
        """Return the modules with weights and what layers compute, or None for what the C++ does not know.

        That is a part which is replaced, patched or hooked, and norms and sizes of heads as of Qwen3 and Gemma.
        """
        layers, config = cast("list[EncoderLayer]", list(self.layers)), self.config
        wide = config.size_of_heads * config.num_attention_heads != config.hidden_size
        if wide or config.head_norm or config.norm_added or config.embedding_scale is not None:
            return None
        if not all(map(_as_written, submodules(self)[1:])):
            return None
        norm_first = {part.norm_first for layer in layers for part in (layer.attention, layer.feed_forward)}
        if norm_first != {self.norm is not None}:
            return None
        embeddings, found = self.embeddings, []
        for layer in layers:
            attended, fed = layer.attention, layer.feed_forward
            activation = activation_name(fed.activation)
            if activation is None:
                return None
            modules = (attended.query, attended.key, attended.value, attended.output, attended.norm)
            settings = (fed.gate, activation, attended.settings)
            found.append(native.LayerModules(*modules, fed.up, fed.down, fed.norm, *settings))
        tables = (embeddings.word, embeddings.position, embeddings.token_type)
        heads = layers[0].attention.settings.heads
        relative = self.relative_attention_bias
        buckets = None if relative is None else distance_buckets(relative.num_embeddings)
        first = embeddings.norm or nn.Identity()
        return native.EncoderModules(*tables, first, tuple(found), heads, self.norm, relative, buckets)

    def _layers_in_training(self) -> list[LayerInTraining]:
        """Return what the layers of BERT are made of, with the dropout of now."""
        found = []
        for layer in cast("Iterable[EncoderLayer]", self.layers):
            attended, fed = layer.attention, layer.feed_forward
            drops = (attended.weight_dropout, attended.output_dropout)
            first, last = drops if attended.training else (0.0, 0.0), fed.dropout if fed.training else 0.0
            projections = Projections(attended.query, attended.key, attended.value)
            modules = (attended.output, attended.norm, fed.up, fed.down, fed.norm)
            found.append(LayerInTraining(projections, *modules, *first, last))
        return found

    def _attention_bias(self, batch: PackedBatch) -> Tensor | None:
        table = self.relative_attention_bias
        if table is None:
            return None
        buckets = relative_buckets(batch.max_length, table.num_embeddings, device=table.weight.device)
        bias: Tensor = table(buckets).permute(2, 0, 1)  # (heads, length, length)
        return bias


def _move_together(groups: Sequence[Sequence[Tensor]]) -> None:
    """Move tensors to one block of memory, those of a group side by side from a multiple of 64 bytes.

    NumPy asks Linux for huge pages. One thread copies, since two would wait for each other on a busy machine.
    """
    sizes = [-(-sum(value.nbytes for value in group) // 64) * 64 for group in groups]
    block = np.empty(sum(sizes) + 64, np.uint8)
    start = -block.__array_interface__["data"][0] % 64
    for group, size in zip(groups, sizes, strict=True):
        joined, end = torch.from_numpy(block[start : start + size]), 0
        for value in group:
            copy = joined[end : end + value.nbytes]
            copy.numpy()[:] = value.detach().reshape(-1).view(torch.uint8).numpy()
            value.data = copy.view(value.dtype).view(value.shape)
            end += value.nbytes
        start += size


_PARTS = frozenset(
    {Linear, nn.Linear, QuantizedLinear, Embedding, nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.Identity, nn.ModuleList}
    | {Embeddings, SelfAttention, FeedForward, EncoderLayer}
)
_FAR = 128  # distance from which all share the last bucket of their direction
_REPLACEABLE = frozenset({"forward", "finish"})  # methods that an instance may replace, as `Encoder.compiled` does


def distance_buckets(buckets: int) -> Tensor:
    """Bucket of each distance, to the key from the query, beyond which it stays: int32, (2 * distances + 1,)."""
    table = relative_buckets(_FAR + 1, buckets, device=torch.device("cpu"))
    return torch.cat((table[-1, :-1], table[0])).int()


def _as_written(part: nn.Module) -> bool:
    """Return True if a part computes what its class says from its weights: not replaced, patched or hooked."""
    hooks = part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
    return type(part) in _PARTS and not hooks and _REPLACEABLE.isdisjoint(vars(part))


def _as_in_bert(part: nn.Module) -> bool:
    """Return True if a part computes what a part of BERT does from its weights: not replaced, patched or hooked."""
    if not _as_written(part) or isinstance(part, (nn.RMSNorm, nn.Identity)):
        return False
    if isinstance(part, FeedForward):
        return part.activation is F.gelu and part.gate is None and not part.norm_first
    return not isinstance(part, SelfAttention) or (part.settings.bidirectional and not part.norm_first)


def relative_buckets(length: int, buckets: int, *, device: torch.device, max_distance: int = _FAR) -> Tensor:
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
