"""Linear layers whose weights are int8: how floats are quantized, and the definition of their product.

Rows are quantized symmetrically, each with its own scale: a whole number from -127 to 127 stands for itself times the
scale. A weight has one scale for each output.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class QuantizedLinear(nn.Module):
    """A linear layer with int8 weights, for inference.

    Its definition multiplies with the dequantized weights. Kernels may quantize the inputs too, token by token.

    Attributes:
        weight: int8, (out, in), a buffer.
        scale: float32, (out,), a buffer: the value of one step of each row of `weight`.
        bias: (out,), or None.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, scale: Tensor, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.bias = bias

    @classmethod
    def of(cls, linear: nn.Linear) -> QuantizedLinear:
        """Quantize a linear layer."""
        weight, scale = quantize_rows(linear.weight.detach())
        return cls(weight, scale, linear.bias)

    def quantized_from(self, weight: Tensor) -> bool:
        """Return True if these are the int8 values and scales of `weight`, floats."""
        values, scale = quantize_rows(weight.float())
        return torch.equal(values, self.weight.cpu()) and torch.equal(scale.to(self.scale.dtype), self.scale.cpu())

    def forward(self, x: Tensor) -> Tensor:
        """(tokens, in) to (tokens, out)."""
        return F.linear(x, self.weight * self.scale[:, None], self.bias)

    def extra_repr(self) -> str:
        """Return the sizes, for `repr`."""
        return f"in_features={self.weight.shape[1]}, out_features={self.weight.shape[0]}, bias={self.bias is not None}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        weight = state_dict.get(f"{prefix}weight")
        if isinstance(weight, Tensor) and weight.dtype != torch.int8:
            errors: list[str] = rest[-1]
            errors.append(
                f"got {prefix}weight in {weight.dtype} for an int8 model; expected torch.int8: load the model with "
                f"dtype='float32' to change its weights"
            )
            return
        super()._load_from_state_dict(state_dict, prefix, *rest)


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize rows: float32, (rows, dim), to int8, (rows, dim), and the scale of each row, (rows,)."""
    most = x.abs().amax(1)
    by = torch.where(most > 0, 127 / most, 0)[:, None]
    return (x * by).round().to(torch.int8), most / 127
