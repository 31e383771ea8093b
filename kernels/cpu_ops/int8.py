"""Linear layers in int8 through oneDNN, for inference.

A weight has one scale for each output; the scale of the inputs is taken anew for each token. oneDNN's product wants
inputs from 0 to 255 with their zero at 128: signed ones go through its slow reference code.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor


class Packed(NamedTuple):
    """A weight in int8, laid out by oneDNN, with the scale and the zero of each output."""

    weight: Tensor
    scales: Tensor
    zeros: Tensor


def available() -> bool:
    """Whether this torch has the product."""
    offered = hasattr(torch.ops.onednn, "qlinear_pointwise") and hasattr(torch.ops.onednn, "qlinear_prepack")
    return offered and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def prepare(weight: Tensor) -> Packed:
    """Quantize a weight, float32, (out, in)."""
    whole, scales = quantize_weight(weight)
    packed = torch.ops.onednn.qlinear_prepack(whole, None)
    return Packed(packed, scales, torch.zeros(weight.shape[0], dtype=torch.int32))


def linear(x: Tensor, packed: Packed, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
    """`x @ weight.T + bias`, then GELU if asked, no derivative: float32, (tokens, in) to (tokens, out)."""
    outputs = packed.scales.shape[0]
    if not x.shape[0]:
        return x.new_empty(0, outputs)
    whole, scales = quantize_rows(x)
    sums = torch.ops.onednn.qlinear_pointwise(
        *(whole, 1.0, 128, packed.weight, packed.scales, packed.zeros),
        *(None, 1.0, 0, torch.float32, "none", [], ""),
    )
    sums.mul_(scales[:, None])
    if bias is not None:
        sums.add_(bias)
    return F.gelu(sums) if gelu else cast(Tensor, sums)


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of float32, (out, in), as int8 from -127 to 127, and what one step stands for, (out,)."""
    whole, scales = quantize_rows(weight)
    return (whole.short() - 128).to(torch.int8), scales


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of float32, (rows, dim), as uint8 with the zero at 128, and what one step stands for, (rows,)."""
    most = x.abs().amax(1)
    by = torch.where(most > 0, 127 / most, 0)[:, None]
    return ((x * by).round() + 128).to(torch.uint8), most / 127
