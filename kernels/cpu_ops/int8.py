"""Products of int8 weights on the CPU through oneDNN, straight from the weights, for inference.

Inputs are quantized too, each token with its own scale; the products are exact sums of whole numbers.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from ..operations.plain import Plain
from ..operations.protocol import as_built
from ..operations.quantized import QuantizedLinear, quantize_rows


@cache
def available() -> bool:
    """Return True if this torch has the product and it is exact on this processor; some saturate at 16 bits."""
    if not hasattr(torch, "_int_mm") or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    extremes = torch.full((16, 64), -127, dtype=torch.int8)
    return bool((torch._int_mm(extremes, -extremes.t()) == -64 * 127**2).all())


class Int8(Plain):
    """The operations for int8 weights, in inference."""

    def linear(self, x: Tensor, module: nn.Module) -> Tensor:
        """See `Plain`."""
        if as_built(module, QuantizedLinear) and x.dtype == module.scale.dtype == torch.float32:
            return linear(x, module.weight, module.scale, module.bias)
        return super().linear(x, module)


def linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """A `QuantizedLinear` with quantized inputs, without gradient: float32, (tokens, in) to (tokens, out).

    Args:
        x: (tokens, in).
        weight: int8, (out, in).
        scale: (out,): the value of one step of each row of `weight`.
        bias: (out,), or None.
    """
    whole, steps = quantize_rows(x)
    product = (torch._int_mm(whole, weight.t()) * scale).mul_(steps[:, None])  # int32 times float32 is float32
    return product if bias is None else product.add_(bias)
