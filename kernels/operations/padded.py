"""The reference's padded computation, padding included, which decides the last bits. Training with `replay` uses it.

Which sums are taken over which shapes decides the order in which gradients add up, hence the look-ups of whole texts
and the bias that is copied for each text.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisbert.errors import ConfigError
from minisbert.packing import PackedBatch, PaddedBatch, Run

from .plain import Plain
from .protocol import AttentionSpec, Tables


class Padded(Plain):
    """The operations over one padded batch.

    Args:
        batch: the batch of this forward pass.
    """

    def __init__(self, batch: PaddedBatch) -> None:
        self._mask = batch.mask  # (texts, length)
        self._bias: Tensor | None = None

    def embed(
        self, batch: PackedBatch, positions: Tensor, tables: Tables, norm: nn.Module | None, *, dropout: float
    ) -> Tensor:
        """See `Operations`; token types are 0."""
        word, position, token_type = tables
        ids = batch.input_ids.view(self._mask.shape)  # (texts, length)
        hidden: Tensor = word(ids)
        if token_type is not None:
            hidden = hidden + token_type(torch.zeros_like(ids))
        if position is not None:
            # BERT looks the positions up once for all texts; RoBERTa numbers those of each text itself.
            rows = positions.view(ids.shape)
            hidden = hidden + position(rows[:1] if positions is batch.positions else rows)
        hidden = hidden.view(batch.tokens, -1)
        return F.dropout(hidden if norm is None else self.norm(hidden, norm), dropout)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, batch: PackedBatch, spec: AttentionSpec) -> Tensor:
        """Attention in which no token attends to padding: (tokens, dim) each, to (tokens, dim).

        Raises:
            ConfigError: the attention is of another kind than BERT's.
        """
        settings, dropout, bias = spec
        if not settings.bidirectional:
            raise ConfigError(f"got {settings}; replay expects attention as in BERT: train without replay")
        texts, length = self._mask.shape
        q, k, v = (part.view(texts, length, settings.heads, -1).transpose(1, 2) for part in (query, key, value))
        seen = self._mask[:, None, None, :].expand(-1, 1, length, -1)  # (texts, 1, length, length)
        if bias is None:
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout)
        else:
            if self._bias is None:  # copied for each text once in this forward pass
                self._bias = bias.expand(texts, -1, -1, -1).contiguous()  # (texts, heads, length, length)
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + self._bias
            lowest = torch.finfo(scores.dtype).min
            scores = scores + torch.zeros_like(seen, dtype=scores.dtype).masked_fill(~seen, lowest)
            attended = F.dropout(scores.softmax(-1), dropout) @ v  # (texts, heads, length, size)
        return attended.transpose(1, 2).reshape(query.shape)

    def mean_pool(self, values: Tensor, batch: PackedBatch) -> Tensor:
        """See `Operations`."""
        weights = self._mask[..., None].to(values.dtype)  # (texts, length, 1)
        total = (values.view(*self._mask.shape, -1) * weights).sum(1)  # (texts, dim)
        return total / weights.sum(1).clamp(min=1e-9)

    def real_tokens(self, values: Tensor, batch: PackedBatch) -> tuple[Tensor, PackedBatch]:
        """See `Operations`."""
        kept, lengths = self._mask.view(-1), self._mask.sum(1)
        ends = lengths.cumsum(0)
        packed = PackedBatch(
            input_ids=batch.input_ids[kept],
            positions=batch.positions[kept],
            text_index=batch.text_index[kept],
            lengths=lengths,
            offsets=F.pad(ends, (1, 0)).int(),
            runs=tuple(Run(end - count, 1, count) for end, count in zip(ends.tolist(), lengths.tolist(), strict=True)),
            restore=batch.restore,
        )
        return values[kept], packed
