"""What stands around the products of a layer on a GPU, as `minisbert.kernels` hands it out."""

from __future__ import annotations

from torch import Tensor

from . import attention, norm, rows
from .attention import attention_qkv
from .gelu import gelu
from .pooling import mean_pool

__all__ = ["add_norm", "attention_qkv", "gelu", "mean_pool", "supports"]


def supports(dim: int, heads: int = 1) -> bool:
    """Whether the operations take token vectors of size `dim`, cut into `heads`."""
    return rows.supports(dim) and (heads == 1 or attention.supports(dim, heads))


def add_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, *, eps: float, dropout: float = 0.0
) -> Tensor:
    """`layer_norm(dropout(x) + residual)`: (tokens, dim) each, in the residual's type.

    Under autocast x is what a product gave, in half precision, and the residual stream stays in float32.
    """
    if residual is None or residual.dtype == x.dtype:
        return norm.add_norm(x, residual, weight, bias, eps=eps, dropout=dropout)
    return norm.add_norm_both(x, residual, weight, bias, eps=eps, dropout=dropout)[0]
