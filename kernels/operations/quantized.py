"""Linear layers in int8: how weights and inputs are quantized and stored, and the definition of the product.

Everything is quantized symmetrically in blocks of `BLOCK` inputs, each row with a scale of its own in each block: a
whole number from -127 to 127 stands for itself times the scale. A few inputs are often much larger than the others and
would take all the steps of their block. Inputs are therefore multiplied with a factor each before they are quantized,
and the weights divided by it, which is SmoothQuant (https://arxiv.org/abs/2211.10438) with an exponent of one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 96  # inputs that share a scale
_COLUMNS, _GROUP = 16, 4  # outputs that are packed side by side, and inputs of one of them that fill 32 bits
_ZERO = 128  # of inputs in the kernel, which are 1 to 255 there
_LEAST = 1e-36  # largest value of a block that counts as zeros; 127 divided by it is still finite
_SMALLEST = 0.1  # largest value that counts as an input's, as a share of the average over all inputs


class QuantizedLinear(nn.Module):
    """A linear layer with int8 weights, for inference.

    Attributes:
        packed: int32, a buffer, (ceil(out / 16), words): the weights as the kernel reads them. For each block of inputs
            there are 16 words of minus 128 times the sum of each output's weights, 16 scales (the bits of floats), and
            for each 4 inputs 16 words that hold 4 weights of one output each.
        factors: (in,), a buffer: what inputs are multiplied with before they are quantized.
        bias: (out,), or None.
    """

    packed: Tensor
    factors: Tensor
    bias: nn.Parameter | None

    def __init__(self, packed: Tensor, factors: Tensor, bias: nn.Parameter | None, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = factors.shape[0], out_features
        self.register_buffer("packed", packed)
        self.register_buffer("factors", factors)
        self.register_parameter("bias", bias)  # listed with the parameters even if it is None

    @classmethod
    def of(cls, linear: nn.Linear, factors: Tensor | None = None) -> QuantizedLinear:
        """Quantize a linear layer.

        Args:
            linear: the layer.
            factors: float32, (in,), of its inputs; by default 1.
        """
        if factors is None:
            factors = torch.ones(linear.in_features, dtype=torch.float32, device=linear.weight.device)
        return cls(_pack(linear.weight.detach().float() / factors), factors, linear.bias, linear.out_features)

    def quantized_from(self, weight: Tensor) -> bool:
        """Return True if these are the int8 weights of `weight`, floats."""
        fits = weight.shape == (self.out_features, self.in_features)
        return fits and torch.equal(_pack(weight.float() / self.factors.float()).to(self.packed.device), self.packed)

    def weight(self) -> Tensor:
        """Return the weights of the inputs times their factors, dequantized: float32, (out, in)."""
        parts, start = [], 0
        for blocks, size in _blocks(self.in_features):
            rows = 2 + -(-size // _GROUP)
            end = start + blocks * rows * _COLUMNS
            words = self.packed[:, start:end].view(-1, blocks, rows, _COLUMNS)  # (strips, blocks, 2 + steps, 16)
            turned = words[:, :, 2:].permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)
            whole = turned.view(torch.int8)[..., :size]  # (strips, 16, blocks, inputs)
            scales = words[:, :, 1].view(torch.float32).transpose(1, 2)  # (strips, 16, blocks)
            parts.append((whole * scales[..., None]).flatten(2).flatten(0, 1)[: self.out_features])
            start = end
        return torch.cat(parts, dim=1)

    def quantized_input(self, x: Tensor) -> Tensor:
        """Return inputs times their factors, quantized and dequantized: (tokens, in), in float32."""
        parts = []
        for part in _in_blocks(x.float() * self.factors.float()):
            by, scale = _steps(part)
            parts.append(((part * by).round() * scale).flatten(1))
        return torch.cat(parts, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply quantized inputs with the weights: (tokens, in) to (tokens, out)."""
        bias = None if self.bias is None else self.bias.float()
        return F.linear(self.quantized_input(x), self.weight(), bias).to(x.dtype)

    def extra_repr(self) -> str:
        """Return the sizes, for `repr`."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if f"{prefix}weight" in state_dict:
            errors: list[str] = rest[-1]
            errors.append(
                f"got {prefix}weight in {state_dict[f'{prefix}weight'].dtype} for an int8 model; expected torch.int8: "
                f"load the model with dtype='float32' to change its weights"
            )
            return
        packed = state_dict.get(f"{prefix}packed")
        if isinstance(packed, Tensor) and packed.dtype != torch.int32:  # cast, the bits of its scales are lost
            rest[-1].append(f"got {prefix}packed in {packed.dtype}; expected torch.int32: do not cast an int8 state")
            return
        super()._load_from_state_dict(state_dict, prefix, *rest)


def input_factors(inputs: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Return factors with which inputs and weights are about equally hard to quantize: (in,).

    Args:
        inputs: examples of inputs, (tokens, in).
        weights: of all layers that take them, (out, in) each.
    """
    largest = inputs.abs().amax(0).float()
    heaviest = torch.stack([weight.abs().amax(0).float() for weight in weights]).amax(0)
    # Inputs that were small in the examples may be larger in other texts.
    largest, heaviest = (value.clamp_min(_SMALLEST * float(value.mean()) or 1.0) for value in (largest, heaviest))
    return (heaviest / largest).sqrt()


def packed_shape(outputs: int, inputs: int) -> tuple[int, int]:
    """Return the shape of packed weights."""
    blocks, steps = -(-inputs // BLOCK), -(-inputs // _GROUP)
    return -(-outputs // _COLUMNS), _COLUMNS * (2 * blocks + steps)


def _blocks(inputs: int) -> list[tuple[int, int]]:
    """Return the number and the size of whole blocks of inputs, and of what is left as one more."""
    whole, rest = divmod(inputs, BLOCK)
    return [(blocks, size) for blocks, size in ((whole, BLOCK), (1, rest)) if blocks * size]


def _in_blocks(x: Tensor) -> list[Tensor]:
    """Cut rows into blocks: (rows, in) to (rows, blocks, inputs), for blocks of each size."""
    parts, start = [], 0
    for blocks, size in _blocks(x.shape[1]):
        parts.append(x[:, start : start + blocks * size].reshape(len(x), blocks, size))
        start += blocks * size
    return parts


def _steps(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return what blocks are multiplied with to have values up to 127, and what 1 stands for: (rows, blocks, 1)."""
    most = x.abs().amax(-1, keepdim=True)
    by = most.new_tensor(127) / most  # 127 / most would be 127 times a rounded reciprocal
    return torch.where(most > _LEAST, by, 0), most / 127


def _pack(weight: Tensor) -> Tensor:
    """Quantize and pack weights: float32, (out, in), to int32, (strips, words)."""
    parts = []
    for part in _in_blocks(F.pad(weight, (0, 0, 0, -weight.shape[0] % _COLUMNS))):
        by, scale = _steps(part)
        whole = F.pad((part * by).round().to(torch.int8), (0, -part.shape[2] % _GROUP))  # (rows, blocks, inputs)
        zero = -_ZERO * whole.sum(2, keepdim=True, dtype=torch.int32)
        words = torch.cat([zero, scale.view(torch.int32), whole.view(torch.int32)], dim=2)  # (rows, blocks, 2 + steps)
        parts.append(words.view(-1, _COLUMNS, *words.shape[1:]).permute(0, 2, 3, 1).flatten(1))
    return torch.cat(parts, dim=1).contiguous()
