"""The machine's limit: useful floating-point operations of texts, over the best rate of matrix products there is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from minisbert.kernels.cpu_ops import native
from torch import Tensor

from minisbert.errors import ConfigError
from minisbert.kernels import QuantizedLinear

ROWS = (256, 1_024, 4_096)
Product: TypeAlias = Callable[[Tensor], Tensor]
# From rows, inputs and outputs of a product to it and what goes into it.
Maker: TypeAlias = Callable[[int, int, int], tuple[Product, Tensor]]


def forward_flops(lengths: Sequence[int], *, dim: int = 384, intermediate: int = 1_536, layers: int = 6) -> int:
    """Operations of the linear layers and of attention over texts of these lengths; no padding, nothing else."""
    linear = 2 * layers * (4 * dim * dim + 2 * dim * intermediate)  # for each token
    attention = 4 * layers * dim  # for each pair of tokens of a text
    return sum(length * linear + length * length * attention for length in lengths)


def training_flops(lengths: Sequence[int], **sizes: int) -> int:
    """Operations of a forward and a backward pass, which takes twice as many."""
    return 3 * forward_flops(lengths, **sizes)


def share(flops: float, seconds: float, gflops: float) -> float:
    """What part of a rate of `gflops` was used."""
    return flops / seconds / (gflops * 1e9)


class Rates:
    """Measures the rate of matrix products of the model's shapes, little by little, between other measurements.

    Args:
        dim: of a token.
        intermediate: of a token between the two last products of a layer.
        seconds: how long a way is timed at least, each time.
        makers: ways to multiply, by precision and name; the processor's by default.
        rows: tokens that are multiplied at once.
        clock: seconds, once what was started is done.

    Attributes:
        gflops: for each precision and way of multiplying the rates found so far.
        missing: ways that do not work here, with the reason.
    """

    def __init__(
        self,
        *,
        dim: int = 384,
        intermediate: int = 1_536,
        seconds: float = 0.05,
        makers: Mapping[tuple[str, str], Maker] | None = None,
        rows: Sequence[int] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._shapes = ((dim, 3 * dim), (dim, dim), (dim, intermediate), (intermediate, dim))
        self._seconds, self._clock = seconds, clock
        makers = _of_the_processor() if makers is None else makers
        self.gflops: dict[str, dict[str, list[float]]] = {precision: {} for precision, _ in makers}
        self.missing: dict[str, str] = {}
        self._ways: list[tuple[str, str, int, list[tuple[Product, Tensor]]]] = []
        self._times: dict[str, int] = {}  # how often a way is run to take long enough
        for (precision, way), make in makers.items():
            for count in ROWS if rows is None else rows:
                name = f"{way}, {count:,} rows"
                try:
                    layer = [make(count, *shape) for shape in self._shapes]
                    for product, x in layer:
                        product(x)
                except (RuntimeError, AttributeError, NotImplementedError, ConfigError) as error:
                    self.missing[f"{precision}, {way}"] = str(error).splitlines()[0][:100]
                    break
                self._ways.append((precision, name, count, layer))

    def measure(self) -> None:
        """Time every way once more, for some hundredths of a second each."""
        for precision, name, rows, layer in self._ways:
            flops = 2 * rows * sum(a * b for a, b in self._shapes)
            times, passed = self._timed(f"{precision}, {name}", layer)
            self.gflops[precision].setdefault(name, []).append(times * flops / max(passed, 1e-9) / 1e9)

    def _timed(self, name: str, layer: Sequence[tuple[Product, Tensor]]) -> tuple[int, float]:
        """How often the products of a layer were run in a row, and for how long."""
        times = self._times.get(name, 1)
        while True:
            start = self._clock()
            for _ in range(times):
                for product, x in layer:
                    product(x)
            passed = self._clock() - start
            if passed >= self._seconds:
                return times, passed
            self._times[name] = times = 2 * times

    def best(self, last: int | None = None) -> dict[str, dict[str, Any]]:
        """For each precision that works the way with the best median rate, of all measurements or the last ones."""
        found: dict[str, dict[str, Any]] = {}
        for precision, ways in self.gflops.items():
            medians = {name: statistics.median(rates[-(last or 0) :]) for name, rates in ways.items()}
            if medians:
                name = max(medians, key=lambda way: medians[way])
                found[precision] = {"gflops": medians[name], "by": name}
        return found


def _of_the_processor() -> dict[tuple[str, str], Maker]:
    return {
        ("fp32", "torch linear"): torch_linear(torch.float32),
        ("fp32", "oneDNN"): _onednn(torch.float32, prepacked=False),
        ("fp32", "oneDNN prepacked"): _onednn(torch.float32, prepacked=True),
        ("bf16", "torch linear"): torch_linear(torch.bfloat16),
        ("bf16", "oneDNN prepacked"): _onednn(torch.bfloat16, prepacked=True),
        ("int8", "oneDNN"): _int8,
        ("fp32", "minisbert's own"): _native(torch.float32),
        ("bf16", "minisbert's own"): _native(torch.bfloat16),
        ("int8", "minisbert's own"): _native(torch.int8),
    }


def torch_linear(dtype: torch.dtype, device: str = "cpu") -> Maker:
    """`F.linear` in a type, on a device."""

    def make(rows: int, inputs: int, outputs: int) -> tuple[Product, Tensor]:
        x, weight, bias = (
            torch.randn(*shape, dtype=dtype, device=device) for shape in ((rows, inputs), (outputs, inputs), (outputs,))
        )
        return lambda x: F.linear(x, weight, bias), x

    return make


def _onednn(dtype: torch.dtype, *, prepacked: bool) -> Maker:
    def make(rows: int, inputs: int, outputs: int) -> tuple[Product, Tensor]:
        weight, bias = torch.randn(outputs, inputs, dtype=dtype), torch.randn(outputs, dtype=dtype)
        if prepacked:
            weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        multiply = torch.ops.mkldnn._linear_pointwise
        return lambda x: multiply(x, weight, bias, "none", [], ""), torch.randn(rows, inputs, dtype=dtype)

    return make


def _int8(rows: int, inputs: int, outputs: int) -> tuple[Product, Tensor]:
    weight = torch.ops.onednn.qlinear_prepack(torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8), None)
    scales, zeros, bias = torch.full((outputs,), 0.01), torch.zeros(outputs, dtype=torch.int32), torch.randn(outputs)
    multiply = torch.ops.onednn.qlinear_pointwise
    x = torch.randint(0, 256, (rows, inputs), dtype=torch.uint8)
    return lambda x: multiply(x, 0.02, 128, weight, scales, zeros, bias, 1.0, 0, torch.float32, "none", [], ""), x


def _native(dtype: torch.dtype) -> Maker:
    def make(rows: int, inputs: int, outputs: int) -> tuple[Product, Tensor]:
        if not native.available(dtype):
            raise ConfigError("not of this processor")
        layer, x = torch.nn.Linear(inputs, outputs), torch.randn(rows, inputs)
        if dtype == torch.int8:
            quantized = QuantizedLinear.of(layer)
            return lambda x: native.linear(x, quantized), x
        layer.to(dtype)
        return lambda x: native.linear(x, layer), x.to(dtype)

    return make
