"""The plain PyTorch definition of each operation: what every kernel is tested against."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..packing import PackedBatch


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x @ weight.T + bias`: (tokens, in) to (tokens, out)."""
    return F.linear(x, weight, bias)


def attention(
    query: Tensor, key: Tensor, value: Tensor, batch: PackedBatch, *, heads: int, dropout: float, bias: Tensor | None
) -> Tensor:
    """Self-attention within each text, one call for each run of texts of equal length.

    Args:
        query: (tokens, dim), like key and value.
        key: what queries are compared with.
        value: what is averaged.
        batch: where the texts stand.
        heads: dim is split into this many heads.
        dropout: probability of dropping an attention weight.
        bias: (heads, longest, longest) added to the scores before softmax, or None; for a padded batch
            (texts, heads, longest, longest).

    Returns:
        (tokens, dim).
    """
    outputs = []
    for run in batch.runs:
        q, k, v = (
            part[run.rows]
            .view(run.texts, run.length, heads, part.shape[1] // heads)
            .transpose(1, 2)  # (texts, heads, length, dim / heads)
            for part in (query, key, value)
        )
        if batch.mask is not None:
            attended = _padded_attention(q, k, v, batch.mask, bias, dropout=dropout)
        else:
            added = None if bias is None else bias[None, :, : run.length, : run.length].to(q.dtype)
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=added, dropout_p=dropout)
        attended = attended.transpose(1, 2)  # (texts, length, heads, dim / heads)
        outputs.append(attended.reshape(run.texts * run.length, query.shape[1]))
    return torch.cat(outputs)


def _padded_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, bias: Tensor | None, *, dropout: float) -> Tensor:
    """Attention over texts of one padded length, as the reference takes it, which decides the last bits."""
    seen = mask[:, None, None, :].expand(-1, 1, mask.shape[1], -1)  # (texts, 1, length, length)
    if bias is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias  # (texts, heads, length, length)
    scores = scores + torch.zeros_like(seen, dtype=scores.dtype).masked_fill(~seen, torch.finfo(scores.dtype).min)
    return F.dropout(scores.softmax(-1), dropout) @ v


def attention_qkv(qkv: Tensor, batch: PackedBatch, *, heads: int, dropout: float = 0.0) -> Tensor:
    """Self-attention within each text: (tokens, 3 * dim), queries, keys and values side by side, to (tokens, dim)."""
    query, key, value = qkv.chunk(3, dim=1)
    return attention(query, key, value, batch, heads=heads, dropout=dropout, bias=None)


def add_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, *, eps: float, dropout: float = 0.0
) -> Tensor:
    """`layer_norm(dropout(x) + residual)`: (tokens, dim) each."""
    dropped = F.dropout(x, dropout) if dropout else x
    return F.layer_norm(dropped if residual is None else dropped + residual, weight.shape, weight, bias, eps)


def gelu(x: Tensor) -> Tensor:
    """`x * (1 + erf(x / sqrt(2))) / 2` of every element."""
    return F.gelu(x)


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


def mean_pool(values: Tensor, batch: PackedBatch, *, normalize: bool = False) -> Tensor:
    """Mean of the rows of each text, of length 1 if asked: (tokens, dim) to (texts, dim), in float32 at least."""
    total = text_sum(values, batch.text_index, batch.texts)
    mean = total / batch.lengths.to(total.dtype).clamp(min=1e-9)[:, None]
    return F.normalize(mean, dim=-1) if normalize else mean


def contrastive(queries: Tensor, candidates: Tensor, *, scale: float = 20.0, ids: Tensor | None = None) -> Tensor:
    """Mean cross entropy of each query's own candidate among all, by cosine similarity (InfoNCE): a scalar.

    Args:
        queries: (queries, dim).
        candidates: (candidates, dim), the first of them the queries' own.
        scale: multiplies the similarities.
        ids: int64, (candidates,): what has the id of a query's own candidate, and is another, does not count for it.
    """
    rows = queries.shape[0]
    similarities = F.normalize(queries, dim=1) @ F.normalize(candidates, dim=1).T  # (queries, candidates)
    scores = similarities * scale
    if ids is not None:
        same = ids[:rows, None] == ids[None, :]
        scores = scores.masked_fill(same & ~torch.eye(*same.shape, dtype=torch.bool, device=same.device), -math.inf)
    return (scores.logsumexp(1) - scores.diagonal()).mean()


def adamw_rows_(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    rows: Tensor,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
) -> None:
    """One step of AdamW without weight decay on some rows of a table, in place.

    Args:
        param: (table rows, dim), like exp_avg and exp_avg_sq.
        grad: (count, dim): slopes of the rows listed.
        exp_avg: running mean of the slopes.
        exp_avg_sq: running mean of their squares.
        rows: int64, (count,), rising.
        lr: learning rate.
        beta1: what is kept of exp_avg.
        beta2: what is kept of exp_avg_sq.
        eps: added to the divisor.
        step: number of this step, from 1.
    """
    mean = exp_avg[rows].lerp_(grad, 1 - beta1)
    square = exp_avg_sq[rows].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    exp_avg[rows], exp_avg_sq[rows] = mean, square
    divisor = (square.sqrt() / math.sqrt(1 - beta2**step)).add_(eps)
    param[rows] -= lr / (1 - beta1**step) * mean / divisor


def text_sum(values: Tensor, text_index: Tensor, texts: int) -> Tensor:
    """Sum of the rows of each text: (tokens, dim) to (texts, dim), in float32 at least."""
    values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    return values.new_zeros(texts, values.shape[1]).index_add(0, text_index, values)
