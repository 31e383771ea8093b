"""The plain PyTorch definition of each operation: what every kernel is tested against."""

from __future__ import annotations

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
        bias: (heads, longest, longest) added to the scores before softmax, or None.

    Returns:
        (tokens, dim).
    """
    outputs = []
    for run in batch.runs:
        q, k, v = (
            part[run.rows].view(run.texts, run.length, heads, -1).transpose(1, 2)  # (texts, heads, length, dim / heads)
            for part in (query, key, value)
        )
        mask = None if bias is None else bias[None, :, : run.length, : run.length].to(q.dtype)
        if batch.mask is not None:
            seen = batch.mask[:, None, None, :].expand(-1, 1, run.length, -1)  # (texts, 1, length, length)
            mask = seen if mask is None else mask.masked_fill(~seen, -torch.inf)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        outputs.append(attended.transpose(1, 2).reshape(run.texts * run.length, -1))  # (tokens of the run, dim)
    return torch.cat(outputs)


def text_sum(values: Tensor, text_index: Tensor, texts: int) -> Tensor:
    """Sum of the rows of each text: (tokens, dim) to (texts, dim), in float32 at least."""
    values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    return values.new_zeros(texts, values.shape[1]).index_add(0, text_index, values)
