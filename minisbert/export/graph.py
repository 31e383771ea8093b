"""A graph of ONNX's standard operators, node by node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

OPSET = 17  # the first with LayerNormalization
IR_VERSION = 10  # what every ONNX Runtime since 1.18 reads
_ZERO = 128  # of inputs in uint8
_SMALL = 64  # elements of a constant that is looked for among those before it, and never in a second file
_ALIGNED = 4096  # bytes: constants in a second file can be mapped into memory
INT64, FLOAT, BOOL, UINT8 = 7, 1, 9, 2  # as onnx numbers them


class Graph:
    """Nodes and constants, with names made up as they come. Values are named by strings.

    Args:
        dtype: "float32"; "float16" for matrices and tables kept in 16 bits, and computed with in float32; or "int8" to
            multiply by weights in int8, one scale for each column, with inputs quantized as they come.
    """

    def __init__(self, *, dtype: str = "float32") -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.quantized, self._half = dtype == "int8", dtype == "float16"
        self._scaled_inputs: dict[str, tuple[Tensor, str]] = {}
        self._inputs_in_int8: dict[str, tuple[str, str, str]] = {}
        self._known: dict[tuple[Any, ...], str] = {}

    def constant(self, values: NDArray[Any] | Sequence[Any] | float, dtype: Any = None) -> str:
        """Keep an array, and return its name; equal small ones are kept once."""
        array = np.ascontiguousarray(np.asarray(values, dtype))
        if np.ndim(values) == 0:
            array = array.reshape(())
        name = f"constant_{len(self.constants)}"
        if array.size <= _SMALL:
            known = self._known.setdefault((array.dtype.str, array.shape, array.tobytes()), name)
            if known != name:
                return known
        self.constants[name] = array
        return name

    def tensors(self, data: Path | None = None) -> list[Any]:
        """Return the constants as those of a file.

        Args:
            data: a second file, which takes all but small ones; a message of protobuf holds no more than 2 GB.
        """
        import onnx

        if data is None:
            return [onnx.numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        tensors = []
        with data.open("wb") as file:
            for name, array in self.constants.items():
                if array.size <= _SMALL:
                    tensors.append(onnx.numpy_helper.from_array(array, name))
                    continue
                file.seek(-(-file.tell() // _ALIGNED) * _ALIGNED)
                start = file.tell()
                array.tofile(file)
                tensor = onnx.TensorProto(name=name, dims=array.shape, data_location=onnx.TensorProto.EXTERNAL)
                tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
                for key, value in (("location", data.name), ("offset", start), ("length", array.nbytes)):
                    tensor.external_data.add(key=key, value=str(value))
                tensors.append(tensor)
        return tensors

    def weight(self, value: Tensor) -> str:
        """Keep a tensor, and return the name of it in float32."""
        array = value.detach().to("cpu", torch.float32).numpy()
        if self._half and array.ndim > 1:  # runtimes convert it when they load it
            return self.cast(self.constant(array, np.float16), FLOAT)
        return self.constant(array)

    def add(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add an operator with one output, and return the name of that."""
        return self.add_several(kind, *inputs, outputs=[output or f"value_{len(self.nodes)}"], **attributes)[0]

    def add_several(self, kind: str, *inputs: str, outputs: list[str], **attributes: Any) -> list[str]:
        """Add an operator with outputs of these names."""
        import onnx

        self.nodes.append(onnx.helper.make_node(kind, list(inputs), outputs, **attributes))
        return outputs

    def cast(self, x: str, to: int) -> str:
        """Convert to another dtype."""
        return self.add("Cast", x, to=to)

    def linear(
        self, x: str, weight: Tensor, bias: Tensor | None, *, factors: Tensor | None = None, by_row: bool = False
    ) -> str:
        """`x @ weight.T + bias`.

        Args:
            x: (..., in).
            weight: (out, in).
            bias: (out,), or None.
            factors: (in,); in int8 inputs are multiplied by them, and weights divided.
            by_row: in int8 each row of inputs has a step of its own, which takes longer, and does not suffer from few
                rows that are much larger than the others.
        """
        if self.quantized:
            product = self._product_in_int8(x, weight, factors, by_row=by_row)
        else:
            product = self.add("MatMul", x, self.weight(weight.t()))
        return product if bias is None else self.add("Add", product, self.weight(bias))

    def _product_in_int8(self, x: str, weight: Tensor, factors: Tensor | None, *, by_row: bool) -> str:
        values = weight.detach().to("cpu", torch.float32).numpy().T  # (in, out)
        if factors is not None:
            values = values / factors.cpu().numpy()[:, None]
            x = self._scaled(x, factors)
        scales = np.maximum(np.abs(values).max(axis=0), 1e-12).astype(np.float32) / 127
        integers = np.clip(np.rint(values / scales), -127, 127).astype(np.int8)
        if x not in self._inputs_in_int8:
            self._inputs_in_int8[x] = self._rows_in_int8(x) if by_row else self._all_in_int8(x)
        quantized, steps, zero = self._inputs_in_int8[x]
        product = self.cast(self.add("MatMulInteger", quantized, self.constant(integers), zero), FLOAT)
        if by_row:  # not in the order below, where ONNX Runtime 1.31 multiplies the bias by the steps, too
            return self.add("Mul", self.add("Mul", product, steps), self.constant(scales))
        return self.add("Mul", product, self.add("Mul", steps, self.constant(scales)))

    def _all_in_int8(self, x: str) -> tuple[str, str, str]:
        """Quantize with one step for all: uint8, the step, and the zero point."""
        names = [f"value_{len(self.nodes)}_{part}" for part in ("integers", "step", "zero")]
        integers, step, zero = self.add_several("DynamicQuantizeLinear", x, outputs=names)
        return integers, step, zero

    def _rows_in_int8(self, x: str) -> tuple[str, str, str]:
        """Quantize each row: uint8 around 128, which runtimes multiply fast, the steps (..., 1), and the zero point."""
        largest = self.add("ReduceMax", self.add("Abs", x), axes=[-1], keepdims=1)
        least = self.constant(1e-12, np.float32)
        steps = self.add("Div", self.add("Max", largest, least), self.constant(127.0, np.float32))
        shifted = self.add("Add", self.add("Div", x, steps), self.constant(_ZERO, np.float32))
        return self.cast(self.add("Round", shifted), UINT8), steps, self.constant(_ZERO, np.uint8)

    def _scaled(self, x: str, factors: Tensor) -> str:
        known = self._scaled_inputs.get(x)
        if known is None or known[0] is not factors:
            known = self._scaled_inputs[x] = factors, self.add("Mul", x, self.weight(factors))
        return known[1]

    def layer_norm(self, x: str, weight: Tensor, bias: Tensor | None, eps: float) -> str:
        """Layer normalization over the last axis."""
        biases = [] if bias is None else [self.weight(bias)]
        return self.add("LayerNormalization", x, self.weight(weight), *biases, axis=-1, epsilon=eps)

    def rms_norm(self, x: str, weight: Tensor, eps: float) -> str:
        """Normalization by root mean square over the last axis."""
        mean = self.add("ReduceMean", self.add("Mul", x, x), axes=[-1], keepdims=1)
        root = self.add("Sqrt", self.add("Add", mean, self.constant(eps, np.float32)))
        return self.add("Mul", self.add("Div", x, root), self.weight(weight))

    def activation(self, x: str, name: str) -> str:
        """An activation by the name that kernels have for it."""
        if name == "relu":
            return self.add("Relu", x)
        if name == "silu":
            return self.add("Mul", x, self.add("Sigmoid", x))
        half = self.add("Mul", x, self.constant(0.5, np.float32))
        if name == "gelu":  # ONNX Runtime looks for a division
            curve = self.add("Erf", self.add("Div", x, self.constant(2**0.5, np.float32)))
        else:  # gelu_tanh
            cube = self.add("Mul", self.add("Mul", x, x), x)
            inner = self.add("Add", x, self.add("Mul", cube, self.constant(0.044715, np.float32)))
            curve = self.add("Tanh", self.add("Mul", inner, self.constant((2 / np.pi) ** 0.5, np.float32)))
        return self.add("Mul", half, self.add("Add", curve, self.constant(1.0, np.float32)))

    def unsqueeze(self, x: str, *axes: int) -> str:
        """Add axes of size 1."""
        return self.add("Unsqueeze", x, self.constant(list(axes), np.int64))

    def reshape(self, x: str, *shape: int) -> str:
        """Reshape; 0 keeps a size, -1 is what is left."""
        return self.add("Reshape", x, self.constant(list(shape), np.int64))

    def total(self, x: str, axis: int, *, keep: bool = False) -> str:
        """Sum over an axis."""
        return self.add("ReduceSum", x, self.constant([axis], np.int64), keepdims=int(keep))
