"""The plain PyTorch definition of each operation: what every kernel is tested against.

The functions are definitions over tensors, with the signatures of the kernels. `Plain` is the protocol over modules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisbert.packing import PackedBatch

from .memory import TrainingMemory
from .protocol import Activation, AttentionSettings, AttentionSpec, LayerInTraining, Projections, Tables


class Plain:
    """The protocol's definitions. Every module is called, so that hooks and modules put in its place take effect.

    Implementations that differ in products, normalization or attention alone override `linear`, `norm` or `attend`.
    """

    def recordable(self, dim: int, settings: AttentionSettings) -> bool:
        """See `Operations`: attention over runs of equal lengths launches other work for every batch."""
        return False

    def embed(
        self, batch: PackedBatch, positions: Tensor, tables: Tables, norm: nn.Module | None, *, dropout: float
    ) -> Tensor:
        """See `Operations`."""
        word, position, token_type = tables
        hidden: Tensor = word(batch.input_ids)
        if token_type is not None:
            types = batch.token_types
            hidden = hidden + (token_type.weight[0] if types is None else token_type(types))
        if position is not None:
            hidden = hidden + position(positions)
        normalized = hidden if norm is None else self.norm(hidden, norm)
        return F.dropout(normalized, dropout) if dropout else normalized

    def attention(self, hidden: Tensor, modules: Projections, batch: PackedBatch, spec: AttentionSpec) -> Tensor:
        """See `Operations`."""
        query, key, value = (self.linear(hidden, module) for module in modules.linears)
        return self.attend(*self._norm_heads(query, key, modules, spec), value, batch, spec)

    def add_norm(
        self, x: Tensor, linear: nn.Module, residual: Tensor, norm: nn.Module | None, *, dropout: float
    ) -> Tensor:
        """See `Operations`."""
        product = self.linear(x, linear)
        total = (F.dropout(product, dropout) if dropout else product) + residual
        return total if norm is None else self.norm(total, norm)

    def norm_add(self, x: Tensor, linear: nn.Module, residual: Tensor, norm: nn.Module) -> Tensor:
        """See `Operations`."""
        return self.norm(self.linear(x, linear), norm) + residual

    def activate(self, x: Tensor, linear: nn.Module, activation: Activation, gate: nn.Module | None) -> Tensor:
        """See `Operations`."""
        inner = self.linear(x, linear)
        return activation(inner) if gate is None else gated(inner, self.linear(x, gate), activation)

    def norm(self, hidden: Tensor, norm: nn.Module) -> Tensor:
        """See `Operations`."""
        normalized: Tensor = norm(hidden)
        return normalized

    def linear(self, x: Tensor, module: nn.Module) -> Tensor:
        """A linear layer: (tokens, in) to (tokens, out)."""
        product: Tensor = module(x)
        return product

    def attend(self, query: Tensor, key: Tensor, value: Tensor, batch: PackedBatch, spec: AttentionSpec) -> Tensor:
        """Self-attention within each text; see the function `attention`."""
        return attention(query, key, value, batch, spec)

    def _norm_heads(
        self, query: Tensor, key: Tensor, modules: Projections, spec: AttentionSpec
    ) -> tuple[Tensor, Tensor]:
        """Queries and keys with their heads normalized, if the layer does that."""
        size = query.shape[1] // spec.settings.heads
        pairs = ((query, modules.query_norm), (key, modules.key_norm))
        first, second = (
            x if norm is None else self.norm(x.reshape(-1, size), norm).view(x.shape).to(x.dtype) for x, norm in pairs
        )
        return first, second

    def layers(
        self, hidden: Tensor, layers: Sequence[LayerInTraining], heads: int, batch: PackedBatch, memory: TrainingMemory
    ) -> Tensor | None:
        """See `Operations`: these operations run layer by layer."""
        return None

    def mean_pool(self, values: Tensor, batch: PackedBatch) -> Tensor:
        """See `Operations`."""
        return mean_pool(values, batch)

    def real_tokens(self, values: Tensor, batch: PackedBatch) -> tuple[Tensor, PackedBatch]:
        """See `Operations`: a packed batch has no padding."""
        return values, batch


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x @ weight.T + bias`: (tokens, in) to (tokens, out)."""
    return F.linear(x, weight, bias)


def attention(query: Tensor, key: Tensor, value: Tensor, batch: PackedBatch, spec: AttentionSpec) -> Tensor:
    """Self-attention within each text, one call for each run of texts of equal length.

    Args:
        query: (tokens, heads * size).
        key: (tokens, key-value heads * size).
        value: like key.
        batch: the texts the tokens belong to.
        spec: the attention.

    Returns:
        (tokens, heads * size).
    """
    settings, dropout, bias = spec
    size = query.shape[1] // settings.heads
    if settings.rotary_base is not None:
        query, key = (rotate(part, batch.positions, size, settings.rotary_base) for part in (query, key))
    grouped = key.shape[1] != query.shape[1]
    outputs = []
    for run in batch.runs:
        q, k, v = (
            part[run.rows].view(run.texts, run.length, part.shape[1] // size, size).transpose(1, 2)
            for part in (query, key, value)
        )  # (texts, heads, length, size)
        window = settings.window if settings.window is not None and settings.window < run.length - 1 else None
        if window is not None and bias is None and run.length > 2 * _block(window):
            attended = _near(q, k, v, settings, dropout)
        else:
            causal = settings.causal and window is None and bias is None  # needs no mask in memory
            mask = None if causal else _mask(run.length, replace(settings, window=window), bias, q)
            attended = F.scaled_dot_product_attention(
                *(q, k, v, mask, dropout), is_causal=causal, scale=settings.scale, enable_gqa=grouped
            )
        attended = attended.transpose(1, 2)  # (texts, length, heads, size)
        outputs.append(attended.reshape(run.texts * run.length, query.shape[1]))
    return torch.cat(outputs)


def rotate(x: Tensor, positions: Tensor, size: int, base: float) -> Tensor:
    """Turn pairs of elements of every head by an angle that grows with the position (Su et al. 2021).

    Args:
        x: (tokens, heads * size). The pairs of a head are its elements i and i + size / 2.
        positions: (tokens,).
        size: of a head.
        base: the angle of pair i is `position / base ** (2 * i / size)`.
    """
    frequencies = rotary_frequencies(size, base, x.device)
    angles = (positions[:, None] * frequencies)[:, None, :]  # (tokens, 1, size / 2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.view(len(x), x.shape[1] // size, size).chunk(2, dim=-1)  # (tokens, heads, size / 2)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).view(x.shape)


def rotary_frequencies(size: int, base: float, device: torch.device) -> Tensor:
    """Return the angles by which the pairs of a head turn in one position: float32, (size / 2,)."""
    powers: Tensor = base ** (torch.arange(0, size, 2, device=device, dtype=torch.float32) / size)
    return 1.0 / powers  # with the reference's rounding


def _mask(length: int, settings: AttentionSettings, bias: Tensor | None, query: Tensor) -> Tensor | None:
    """The mask of texts of one length: bool, or added to the scores, or None for no mask."""
    added = None if bias is None else bias[None, :, :length, :length].to(query.dtype)
    if not settings.causal and settings.window is None:
        return added
    place = torch.arange(length, device=query.device)
    distance = place[:, None] - place[None, :]  # (length, length)
    seen = distance >= 0 if settings.causal else torch.ones_like(distance, dtype=torch.bool)
    if settings.window is not None:
        seen &= distance.abs() <= settings.window
    return seen if added is None else added.masked_fill(~seen, -torch.inf)


def _block(window: int) -> int:
    """Queries that attend to their window together."""
    return max(window, 64)


def _near(q: Tensor, k: Tensor, v: Tensor, settings: AttentionSettings, dropout: float) -> Tensor:
    """Attention within a window, of time and memory that grow with length times window.

    Each block of queries attends to the keys in reach of one of them.

    Args:
        q: (texts, heads, length, size).
        k: (texts, key-value heads, length, size).
        v: like k.
        settings: with a window.
        dropout: of attention weights.

    Returns:
        Like q.
    """
    window, length = settings.window or 0, q.shape[2]
    before, after = window, 0 if settings.causal else window
    block = _block(window)
    blocks = -(-length // block)
    texts, heads, _, size = q.shape
    filled = F.pad(q, (0, 0, 0, blocks * block - length)).view(texts, heads, blocks, block, size)
    queries = filled.transpose(1, 2).flatten(0, 1)  # (texts * blocks, heads, block, size)
    reach = before + block + after

    def in_reach(x: Tensor) -> Tensor:
        wide = F.pad(x, (0, 0, before, blocks * block - length + after)).unfold(2, reach, block)
        return wide.permute(0, 2, 1, 4, 3).flatten(0, 1)  # (texts * blocks, key-value heads, reach, size)

    query = torch.arange(block, device=q.device)[:, None]
    key = torch.arange(reach, device=q.device)[None, :] - before  # counted from the first query of the block
    seen = (key >= query - before) & (key <= query + after)  # (block, reach)
    start = torch.arange(blocks, device=q.device)[:, None, None] * block
    inside = (start + key >= 0) & (start + key < length)
    outside = start + query >= length  # queries that fill the last block up see all, and are left out afterwards
    mask = ((seen & inside) | outside).repeat(texts, 1, 1)[:, None]  # (texts * blocks, 1, block, reach)
    attended: Tensor = F.scaled_dot_product_attention(
        *(queries, in_reach(k), in_reach(v), mask, dropout),
        scale=settings.scale,
        enable_gqa=heads != k.shape[1],
    )
    return attended.view(texts, blocks, heads, block, size).transpose(1, 2).flatten(2, 3)[:, :, :length]


def attention_qkv(qkv: Tensor, batch: PackedBatch, *, heads: int, dropout: float = 0.0) -> Tensor:
    """Self-attention within each text: (tokens, 3 * dim), queries, keys and values side by side, to (tokens, dim)."""
    query, key, value = qkv.chunk(3, dim=1)
    return attention(query, key, value, batch, AttentionSpec(AttentionSettings(heads), dropout))


def add_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, *, eps: float, dropout: float = 0.0
) -> Tensor:
    """`layer_norm(dropout(x) + residual)`: (tokens, dim) each."""
    dropped = F.dropout(x, dropout) if dropout else x
    return F.layer_norm(dropped if residual is None else dropped + residual, weight.shape, weight, bias, eps)


def gelu(x: Tensor) -> Tensor:
    """`x * (1 + erf(x / sqrt(2))) / 2` of every element."""
    return F.gelu(x)


def gated(x: Tensor, gate: Tensor, activation: Activation) -> Tensor:
    """`activation(x) * gate` of every element."""
    return activation(x) * gate


def embed_norm(
    ids: Tensor,
    positions: Tensor,
    types: Tensor | None,
    word: Tensor,
    position: Tensor,
    token_type: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float,
) -> Tensor:
    """Sum of the embeddings of word, type (0 if None) and position, normalized: (tokens, dim)."""
    total = F.embedding(ids, word)
    if token_type is not None:
        total = total + (token_type[0] if types is None else F.embedding(types, token_type))
    return F.layer_norm(total + F.embedding(positions, position), weight.shape, weight, bias, eps)


def mean_pool(values: Tensor, batch: PackedBatch) -> Tensor:
    """Mean of the rows of each text: (tokens, dim) to (texts, dim), in float32 at least."""
    total = text_sum(values, batch.text_index, batch.texts)
    return total / batch.lengths.to(total.dtype).clamp(min=1e-9)[:, None]


def contrastive(queries: Tensor, candidates: Tensor, *, scale: float = 20.0) -> Tensor:
    """Mean cross entropy of each query's own candidate among all, by cosine similarity (InfoNCE): a scalar.

    Args:
        queries: (queries, dim).
        candidates: (candidates, dim), the first of them the queries' own.
        scale: multiplies the similarities.
    """
    similarities = F.normalize(queries, dim=1) @ F.normalize(candidates, dim=1).T  # (queries, candidates)
    scores = similarities * scale
    return (scores.logsumexp(1) - scores.diagonal()).mean()


class AdamWStep(NamedTuple):
    """The settings of one step of AdamW; `step` is its number, from 1."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    step: int


def adamw_rows_(param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, rows: Tensor, to: AdamWStep) -> None:
    """Update some rows of a table in place by one step of AdamW without weight decay.

    Args:
        param: (table rows, dim), like exp_avg and exp_avg_sq.
        grad: (count, dim): gradients of the rows listed.
        exp_avg: running mean of the gradients.
        exp_avg_sq: running mean of their squares.
        rows: int64, (count,), ascending.
        to: the step.
    """
    lr, beta1, beta2, eps, step = to
    mean = exp_avg[rows].lerp_(grad, 1 - beta1)
    square = exp_avg_sq[rows].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    exp_avg[rows], exp_avg_sq[rows] = mean, square
    divisor = (square.sqrt() / math.sqrt(1 - beta2**step)).add_(eps)
    param[rows] -= lr / (1 - beta1**step) * mean / divisor


def text_sum(values: Tensor, text_index: Tensor, texts: int) -> Tensor:
    """Sum of the rows of each text: (tokens, dim) to (texts, dim), in float32 at least."""
    values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    return values.new_zeros(texts, values.shape[1]).index_add(0, text_index, values)
