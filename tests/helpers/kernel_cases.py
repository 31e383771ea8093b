"""What tests of the C++ kernels with gradients share: batches, exact attention, and the masks of dropout."""

from __future__ import annotations

import math

import numpy as np
import torch
from minisbert.kernels.cpu_ops import library
from torch import Tensor

from minisbert.packing import PackedBatch, pack
from minisbert.text import TokenizedTexts


def batch_of(lengths: list[int]) -> PackedBatch:
    return pack(TokenizedTexts(np.zeros(sum(lengths), np.int32), np.array(lengths, np.int64), 0))


def close(got: Tensor, expected: Tensor, bound: float) -> None:
    assert got.shape == expected.shape
    assert bool(got.isfinite().all())
    if got.numel():
        largest = float((got.double() - expected.double()).abs().max())
        assert largest <= bound * max(float(expected.abs().max()), 1e-3), largest


def dropout_mask(seed: int, first_row: int, rows: int, columns: int, dropout: float) -> Tensor:
    """Which elements the operations keep under `seed`: bool, (rows, columns).

    Rows are tokens and columns dimensions in `add_norm`; in `attention_qkv` rows are token * heads + head and columns
    places in the text.
    """
    out = torch.empty(rows, columns, dtype=torch.bool)
    threshold = min(round(dropout * 2**32), 2**32 - 1)
    library.required().dropout_mask(seed, first_row, rows, columns, threshold, out.data_ptr())
    return out


def exact_attention(qkv: Tensor, batch: PackedBatch, heads: int, dropout: float, seed: int) -> Tensor:
    """Attention text by text, head by head, under the mask of `seed`."""
    dim = qkv.shape[1] // 3
    outputs = []
    for start, end in zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True):
        length = end - start
        q, k, v = qkv[start:end].view(length, 3, heads, dim // heads).permute(1, 2, 0, 3)
        weights = (q @ k.transpose(1, 2) / math.sqrt(dim // heads)).softmax(-1)  # (heads, length, length)
        if dropout:
            mask = dropout_mask(seed, start * heads, length * heads, length, dropout)
            weights = weights * mask.view(length, heads, length).transpose(0, 1) / (1 - dropout)
        outputs.append((weights @ v).transpose(0, 1).reshape(length, dim))
    return torch.cat(outputs) if outputs else qkv[:, :dim]
