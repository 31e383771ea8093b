"""The encoder as a graph: token ids and a mask to token embeddings, whichever side texts are padded on.

The operators and the order of their inputs are those in which ONNX Runtime finds attention, GELU and residual sums with
their normalization, for which it has fused operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels import AttentionSettings, activation_name, plain
from ..modules.encoder import Encoder, distance_buckets
from ..modules.layers import EncoderLayer, OffsetRMSNorm
from .graph import BOOL, FLOAT, INT64, Graph

_LOWEST = float(np.finfo(np.float32).min)


class Inputs(NamedTuple):
    """The values that all layers share.

    Attributes:
        mask: bool, (texts, length): True for tokens that are not padding.
        places: int64, (texts, length): position of each token in its text, from 0.
        distances: int64, (length, length): of each key from the query.
    """

    mask: str
    places: str
    distances: str


def inputs_of(graph: Graph) -> Inputs:
    """Read the attention mask."""
    counted = graph.add("CumSum", "attention_mask", graph.constant(1, np.int64))
    places = graph.add("Max", graph.add("Sub", counted, graph.constant(1, np.int64)), graph.constant(0, np.int64))
    length = graph.add("Gather", graph.add("Shape", "input_ids"), graph.constant(1, np.int64))
    index = graph.add("Range", graph.constant(0, np.int64), length, graph.constant(1, np.int64))
    distances = graph.add("Sub", graph.unsqueeze(index, 0), graph.unsqueeze(index, 1))
    return Inputs(graph.cast("attention_mask", BOOL), places, distances)


class EncoderGraph:
    """Adds an encoder to a graph.

    Args:
        graph: to add to.
        encoder: whose weights are written.
        factors: in int8, by what the inputs of each linear layer are multiplied.
    """

    def __init__(self, graph: Graph, encoder: Encoder, factors: Mapping[nn.Linear, Tensor]) -> None:
        self._graph, self._encoder, self._factors = graph, encoder, factors
        self.inputs = inputs_of(graph)
        self._turns: dict[float, tuple[str, str]] = {}
        self._masks: dict[tuple[bool, int | None], str] = {}
        self._real: dict[str, str] = {}
        self._kept: str | None = None  # 1 for tokens that are not padding, (texts, length, 1)

    def token_embeddings(self) -> str:
        """Embed the tokens: (texts, length, dim)."""
        hidden = self._embeddings()
        bias = self._relative_bias()
        for layer in cast("list[EncoderLayer]", list(self._encoder.layers)):
            hidden = self._feed_forward(layer, self._attention(layer, hidden, bias))
        return hidden if self._encoder.norm is None else self._norm(hidden, self._encoder.norm)

    def _embeddings(self) -> str:
        graph, embeddings = self._graph, self._encoder.embeddings
        hidden = graph.add("Gather", graph.weight(embeddings.word.weight), "input_ids")
        if (types := embeddings.token_type) is not None:
            if self._encoder.token_types:
                typed = graph.add("Gather", graph.weight(types.weight), "token_type_ids")
            else:
                typed = graph.weight(types.weight[0])
            hidden = graph.add("Add", hidden, typed)
        if embeddings.position is not None:
            rows = graph.add("Gather", graph.weight(embeddings.position.weight), self._positions())
            hidden = graph.add("Add", hidden, rows)
        if embeddings.norm is not None:
            hidden = self._norm(hidden, embeddings.norm)
        if embeddings.scale is not None:
            hidden = graph.add("Mul", hidden, graph.constant(embeddings.scale, np.float32))
        return hidden

    def _positions(self) -> str:
        """Rows of the table of positions: int64, (texts, length); those of a text that is too long lie beyond it."""
        graph, embeddings = self._graph, self._encoder.embeddings
        if not embeddings.offset:
            return self.inputs.places
        padding = graph.constant(embeddings.padding, np.int64)  # RoBERTa counts what is not this token
        others = graph.add("Not", graph.add("Equal", "input_ids", padding))
        counted = graph.cast(graph.add("And", others, self.inputs.mask), INT64)  # tools may pad with another token
        place = graph.add("Mul", graph.add("CumSum", counted, graph.constant(1, np.int64)), counted)
        return graph.add("Add", place, padding)

    def _norm(self, x: str, norm: nn.Module) -> str:
        graph = self._graph
        if isinstance(norm, nn.Identity):
            return x
        if isinstance(norm, OffsetRMSNorm):
            return graph.rms_norm(x, norm.weight + norm.offset, float(norm.eps or 0))
        if isinstance(norm, nn.RMSNorm):
            return graph.rms_norm(x, norm.weight, float(norm.eps or 0))
        if not isinstance(norm, nn.LayerNorm):
            raise ConfigError(f"got a {type(norm).__name__}; expected a normalization that can be exported")
        return graph.layer_norm(x, norm.weight, norm.bias, norm.eps)

    def _linear(self, x: str, module: nn.Module, *, by_row: bool = False) -> str:
        if type(module).forward is not nn.Linear.forward:
            raise ConfigError(
                f"got a {type(module).__name__} in the encoder; expected linear layers in floats: load the model "
                f"without int8, and merge its adapter with merge_and_unload()"
            )
        linear = cast(nn.Linear, module)
        if self._graph.quantized and not by_row:  # one step for all rows, which must not depend on padding
            x = self._without_padding(x)
        factors = self._factors.get(linear)
        return self._graph.linear(x, linear.weight, linear.bias, factors=factors, by_row=by_row)

    def _without_padding(self, x: str) -> str:
        """Set the rows of padding to 0: (texts, length, dim) to the same."""
        if self._kept is None:
            self._kept = self._graph.unsqueeze(self._graph.cast(self.inputs.mask, FLOAT), 2)
        if x not in self._real:
            self._real[x] = self._graph.add("Mul", x, self._kept)
        return self._real[x]

    def _attention(self, layer: EncoderLayer, hidden: str, bias: str | None) -> str:
        graph, part = self._graph, layer.attention
        settings = part.settings
        x = self._norm(hidden, part.norm) if part.norm_first else hidden
        keys = settings.key_value_heads or settings.heads
        query = self._heads(x, part.query, settings.heads, part.query_norm, settings.rotary_base)
        key = self._heads(x, part.key, keys, part.key_norm, settings.rotary_base, of_keys=True)
        value = self._heads(x, part.value, keys, None, None)
        if keys != settings.heads:
            index = graph.constant(np.repeat(np.arange(keys), settings.heads // keys), np.int64)
            key, value = (graph.add("Gather", one, index, axis=1) for one in (key, value))
        divisor = self._encoder.config.size_of_heads**0.5 if settings.scale is None else 1 / settings.scale
        scores = graph.add("Div", graph.add("MatMul", query, key), graph.constant(divisor, np.float32))
        if bias is not None:
            scores = graph.add("Add", scores, bias)
        weights = graph.add("Softmax", graph.add("Add", scores, self._mask(settings)), axis=-1)
        attended = graph.add("Transpose", graph.add("MatMul", weights, value), perm=[0, 2, 1, 3])
        attended = graph.reshape(attended, 0, 0, settings.heads * self._encoder.config.size_of_heads)
        return self._added(attended, part.output, hidden, part)

    def _heads(
        self,
        x: str,
        linear: nn.Module,
        heads: int,
        norm: nn.Module | None,
        base: float | None,
        *,
        of_keys: bool = False,
    ) -> str:
        """Project to heads, normalized and turned by position: (texts, heads, length, size); keys transposed."""
        graph = self._graph
        split = graph.reshape(self._linear(x, linear), 0, 0, heads, self._encoder.config.size_of_heads)
        if norm is not None:
            split = self._norm(split, norm)
        if base is None:
            return graph.add("Transpose", split, perm=[0, 2, 3, 1] if of_keys else [0, 2, 1, 3])
        split = graph.add("Transpose", split, perm=[0, 2, 1, 3])
        cosine, sine = self._turn(base)
        names = [f"{split}_first", f"{split}_second"]
        first, second = graph.add_several("Split", split, outputs=names, axis=-1)
        turned = [
            graph.add("Sub", graph.add("Mul", first, cosine), graph.add("Mul", second, sine)),
            graph.add("Add", graph.add("Mul", second, cosine), graph.add("Mul", first, sine)),
        ]
        joined = graph.add("Concat", *turned, axis=-1)
        return graph.add("Transpose", joined, perm=[0, 1, 3, 2]) if of_keys else joined

    def _turn(self, base: float) -> tuple[str, str]:
        """Cosines and sines of rotary positions: (texts, 1, length, size / 2)."""
        if base not in self._turns:
            graph, embeddings = self._graph, self._encoder.embeddings
            device = embeddings.word.weight.device
            frequencies = plain.rotary_frequencies(self._encoder.config.size_of_heads, base, device)
            places = graph.unsqueeze(graph.cast(self.inputs.places, FLOAT), 1, 3)  # (texts, 1, length, 1)
            angles = graph.add("Mul", places, graph.weight(frequencies))
            self._turns[base] = graph.add("Cos", angles), graph.add("Sin", angles)
        return self._turns[base]

    def _mask(self, settings: AttentionSettings) -> str:
        """Added to scores: 0 where a query sees a key, (texts, 1, 1 or length, length)."""
        graph, kind = self._graph, (settings.causal, settings.window)
        zero, lowest = (graph.constant(value, np.float32) for value in (0.0, _LOWEST))
        if kind == (False, None) and kind not in self._masks:
            seen = graph.cast(graph.unsqueeze(graph.unsqueeze("attention_mask", 1), 2), FLOAT)
            unseen = graph.add("Sub", graph.constant(1.0, np.float32), seen)
            self._masks[kind] = graph.add("Mul", unseen, lowest)
        if kind not in self._masks:
            seen = graph.unsqueeze(self.inputs.mask, 1, 2)
            distances = self.inputs.distances
            if settings.causal:
                seen = graph.add("And", seen, graph.add("LessOrEqual", distances, graph.constant(0, np.int64)))
            if settings.window is not None:
                near = graph.add("LessOrEqual", graph.add("Abs", distances), graph.constant(settings.window, np.int64))
                seen = graph.add("And", seen, near)
            self._masks[kind] = graph.add("Where", seen, zero, lowest)
        return self._masks[kind]

    def _relative_bias(self) -> str | None:
        """Bias of scores by the distance of the key, (1, heads, length, length)."""
        graph, table = self._graph, self._encoder.relative_attention_bias
        if table is None:
            return None
        buckets = distance_buckets(table.num_embeddings).numpy().astype(np.int64)
        reach = len(buckets) // 2
        ends = (graph.constant(value, np.int64) for value in (-reach, reach))
        low, high = ends
        near = graph.add("Min", graph.add("Max", self.inputs.distances, low), high)
        rows = graph.add("Gather", graph.constant(buckets), graph.add("Add", near, high))
        bias = graph.add("Gather", graph.weight(table.weight), rows)  # (length, length, heads)
        return graph.unsqueeze(graph.add("Transpose", bias, perm=[2, 0, 1]), 0)

    def _feed_forward(self, layer: EncoderLayer, hidden: str) -> str:
        graph, part = self._graph, layer.feed_forward
        name = activation_name(part.activation)
        if name is None:
            raise ConfigError(f"got the activation {part.activation}; expected gelu, relu or silu to export")
        x = self._norm(hidden, part.norm) if part.norm_first else hidden
        inner = graph.activation(self._linear(x, part.up), name)
        if part.gate is not None:
            inner = graph.add("Mul", inner, self._linear(x, part.gate))
        return self._added(inner, part.down, hidden, part, by_row=True)

    def _added(self, x: str, linear: nn.Module, hidden: str, part: Any, *, by_row: bool = False) -> str:
        """Add what a block computes to the hidden states, with its normalizations."""
        product = self._linear(x, linear, by_row=by_row)
        if part.added_norm is not None:
            product = self._norm(product, part.added_norm)
        total = self._graph.add("Add", product, hidden)
        return total if part.norm_first else self._norm(total, part.norm)
