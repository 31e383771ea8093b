"""The operations of an encoder on a GPU: products through cuBLAS, everything between them in one Triton kernel each.

Query, key and value are one product, and the bias of a linear layer is added by the kernel that follows it. Under
autocast products run in half precision while the residual stream stays in float32. Nothing is kept between passes, so a
changed weight cannot be missed. What no kernel takes is computed by `Plain`: modules that are not as built, other
sizes, attention with a bias, other activations.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisbert.packing import PackedBatch

from ..operations.plain import Plain
from ..operations.protocol import (
    Activation,
    AttentionSettings,
    AttentionSpec,
    Projections,
    Tables,
    activation_name,
    as_built,
    norm_fits,
)
from . import attention, pooling, rotary
from .embedding import embed_norm
from .gated import gated
from .gelu import bias_gelu
from .launch import DTYPES
from .norm import add_norm


class TritonAttention(Plain):
    """Attention and pooling in Triton; everything else is plain PyTorch, which torch.compile can trace."""

    def recordable(self, dim: int, settings: AttentionSettings) -> bool:
        """See `Operations`."""
        return settings.bidirectional and attention.supports(dim, settings.heads)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, batch: PackedBatch, spec: AttentionSpec) -> Tensor:
        """See `Plain`; attention that differs from BERT's in rotary positions alone is BERT's once they are turned."""
        settings = spec.settings
        size = query.shape[1] // settings.heads
        if settings.rotary_base is not None and query.dtype in DTYPES and rotary.supports(size):
            query, key = (rotary.rotate(part, batch.positions, size, settings.rotary_base) for part in (query, key))
            spec = spec._replace(settings=replace(settings, rotary_base=None))
        if spec.bias is not None or not self.recordable(query.shape[1], spec.settings) or query.dtype not in DTYPES:
            return super().attend(query, key, value, batch, spec)
        qkv = torch.cat((query, key, value), dim=1)
        return attention.attention_qkv(qkv, batch, heads=spec.settings.heads, dropout=spec.dropout)

    def mean_pool(self, values: Tensor, batch: PackedBatch) -> Tensor:
        """See `Operations`."""
        takes = values.dtype in DTYPES and pooling.supports(values.shape[1])
        return pooling.mean_pool(values, batch) if takes else super().mean_pool(values, batch)


class Triton(TritonAttention):
    """All operations in Triton kernels, with gradients. An object serves one forward pass.

    Args:
        dtype: of the products, as autocast asks for; that of the weights by default.
    """

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        self._dtype = dtype
        self._stream: tuple[Tensor, Tensor, int] | None = None

    def embed(
        self, batch: PackedBatch, positions: Tensor, tables: Tables, norm: nn.Module | None, *, dropout: float
    ) -> Tensor:
        """See `Operations`."""
        word, position, token_type = tables
        if position is None or not _takes_tables(*tables) or not norm_fits(norm, word.embedding_dim, *DTYPES):
            return super().embed(batch, positions, tables, norm, dropout=dropout)
        weights = (
            word.weight,
            position.weight,
            None if token_type is None else token_type.weight,
            norm.weight,
            norm.bias,
        )
        return embed_norm(batch.input_ids, positions, batch.token_types, *weights, eps=norm.eps, dropout=dropout)

    def attention(self, hidden: Tensor, modules: Projections, batch: PackedBatch, spec: AttentionSpec) -> Tensor:
        """See `Operations`; queries, keys and values are one product."""
        layers = [layer for layer in modules.linears if _takes_linear(layer) and layer.bias is not None]
        plain = spec.bias is None and modules.query_norm is None
        if len(layers) < 3 or not plain or not self.recordable(layers[0].out_features, spec.settings):
            return super().attention(hidden, modules, batch, spec)
        weight, added = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
        qkv = self._product(hidden, weight, added)  # (tokens, 3 * dim)
        return attention.attention_qkv(qkv, batch, heads=spec.settings.heads, dropout=spec.dropout)

    def add_norm(
        self, x: Tensor, linear: nn.Module, residual: Tensor, norm: nn.Module | None, *, dropout: float
    ) -> Tensor:
        """See `Operations`; the sum is also rounded for the next product."""
        product, bias = self._without_bias(x, linear)
        fits = residual.is_contiguous() and residual.dtype in (product.dtype, torch.float32)
        if not fits or not norm_fits(norm, residual.shape[1], *DTYPES):
            total = F.dropout(product if bias is None else product + bias, dropout) + residual
            return total if norm is None else self.norm(total, norm)
        stream, rounded = add_norm(
            product, residual, norm.weight, norm.bias, eps=norm.eps, dropout=dropout, x_bias=bias
        )
        self._stream = None if stream.is_inference() else (stream, rounded, stream._version)
        return stream

    def activate(self, x: Tensor, linear: nn.Module, activation: Activation, gate: nn.Module | None) -> Tensor:
        """See `Operations`."""
        name = activation_name(activation)
        if gate is not None and name is not None:
            inner, factor = self.linear(x, linear), self.linear(x, gate)
            if inner.dtype == factor.dtype and inner.dtype in DTYPES:
                return gated(inner, factor, name)
        if activation is not F.gelu or gate is not None:
            return super().activate(x, linear, activation, gate)
        return bias_gelu(*self._without_bias(x, linear))

    def linear(self, x: Tensor, module: nn.Module) -> Tensor:
        """See `Plain`."""
        return self._product(x, module.weight, module.bias) if _takes_linear(module) else super().linear(x, module)

    def _without_bias(self, x: Tensor, linear: nn.Module) -> tuple[Tensor, Tensor | None]:
        """The output of a linear layer without its bias, and the bias; with it, and None, if it is not as built."""
        if _takes_linear(linear):
            return self._product(x, linear.weight, None), linear.bias
        return super().linear(x, linear), None

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # Cast here and not by autocast, whose cache of casts a CUDA graph must not capture.
        dtype = self._dtype or weight.dtype
        return F.linear(self._rounded(x, dtype), weight.to(dtype), None if bias is None else bias.to(dtype))

    def _rounded(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """X in a dtype: the copy that `add_norm` made, if x is what it returned and no hook has changed it."""
        if self._stream is not None:
            stream, rounded, version = self._stream
            if x is stream and x._version == version and rounded.dtype == dtype:
                return rounded
        return x.to(dtype)


def _takes_tables(*tables: nn.Embedding | None) -> bool:
    present = [table for table in tables if table is not None]
    return len({table.weight.dtype for table in present}) == 1 and all(
        as_built(table, nn.Embedding)
        and table.max_norm is None
        and table.padding_idx is None
        and _regular(table.weight)
        for table in present
    )


def _takes_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    return as_built(module, nn.Linear) and _regular(module.weight, module.bias)


def _regular(*weights: Tensor | None) -> bool:
    return all(weight is None or (weight.dtype in DTYPES and weight.is_contiguous()) for weight in weights)
