"""Each operation that goes through the kernel dispatch against its plain definition, on the model's shapes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

import numpy as np
import timing
import torch
from machine import table
from minisbert.kernels.cpu_ops import fused, onednn
from torch import Tensor

from minisbert import kernels
from minisbert.kernels import plain
from minisbert.packing import PackedBatch, pack
from minisbert.text import TokenizedTexts

DIM, HEADS = 384, 12
LINEAR = ((384, 384), (384, 1_536), (1_536, 384))
TEXTS = {"128 texts of 8 to 24 tokens": (128, 8, 24), "16 texts of 64 to 256 tokens": (16, 64, 256)}
Case: TypeAlias = "tuple[Callable[..., Tensor], list[Tensor]]"
MODES: tuple[kernels.Mode, ...] = ("auto", "reference")
REPEATS, QUICK_REPEATS = 20, 3


def cases() -> dict[str, Case]:
    """Operation and shapes, with the operation as a function of tensors, and those."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    found: dict[str, Case] = {}
    for inputs, outputs in LINEAR:
        tensors = [normal(2_048, inputs), normal(outputs, inputs) / inputs**0.5, normal(outputs)]
        found[f"linear, 2,048 tokens, {inputs} to {outputs}"] = (linear, tensors)
    for name, (texts, shortest, longest) in TEXTS.items():
        batch = batch_of(texts, shortest, longest)
        tokens = batch.tokens
        found[f"attention, {name}"] = (attention(batch), [normal(tokens, 3 * DIM)])
        found[f"add_norm, {name}"] = (add_norm, [normal(tokens, DIM), normal(tokens, DIM), normal(DIM), normal(DIM)])
        found[f"gelu, {name}"] = (gelu, [normal(tokens, 4 * DIM)])
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time both versions of each operation."""
    repeats = QUICK_REPEATS if options.quick else REPEATS
    return {"operations": against_plain(cases(), options.rounds, repeats)}


def against_plain(
    found: Mapping[str, Case], rounds: int, repeats: int, *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Time both versions in turn, forward and with the backward pass, and compare what they give."""
    result = {}
    for name, (operation, tensors) in found.items():
        outputs = {mode: _values(operation, tensors, mode) for mode in MODES}
        largest = [
            float((fast - plain).abs().max()) for fast, plain in zip(outputs["auto"], outputs["reference"], strict=True)
        ]
        times = {}
        for kind, run in (("forward", _forward), ("both", _both)):
            runs = {mode: _repeated(run, operation, tensors, mode, repeats) for mode in MODES}
            seconds = timing.interleaved(runs, rounds, clock=clock)
            times[kind] = {
                "seconds": {mode: timing.spread(taken)["median"] / repeats for mode, taken in seconds.items()},
                "times_as_fast": timing.times_as_fast(seconds["auto"], seconds["reference"]),
            }
        result[name] = {**times, "max_difference": {"output": largest[0], "gradients": max(largest[1:])}}
    return result


def table_of(result: dict[str, Any]) -> str:
    """For people."""
    rows: list[tuple[Any, ...]] = [
        ("", "forward x plain", "low", "high", "with backward x plain", "low", "high", "max diff", "of gradients")
    ]
    for name, one in result["operations"].items():
        ratios = [
            f"{one[kind]['times_as_fast'][part]:.2f}"
            for kind in ("forward", "both")
            for part in ("median", "low", "high")
        ]
        rows.append((name, *ratios, *(f"{value:.1e}" for value in one["max_difference"].values())))
    return table(rows)


def _values(operation: Callable[..., Tensor], tensors: list[Tensor], mode: kernels.Mode) -> list[Tensor]:
    """Output and gradients."""
    with kernels.use(mode):
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        output = operation(*leaves)
        slope = torch.linspace(-1, 1, output.numel(), dtype=output.dtype, device=output.device)
        output.backward(slope.view_as(output))
        return [output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def _forward(operation: Callable[..., Tensor], tensors: list[Tensor]) -> None:
    with torch.inference_mode():
        operation(*tensors)


def _both(operation: Callable[..., Tensor], tensors: list[Tensor]) -> None:
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    output = operation(*leaves)
    output.backward(torch.ones_like(output))


def _repeated(
    run: Callable[..., None], operation: Callable[..., Tensor], tensors: list[Tensor], mode: kernels.Mode, repeats: int
) -> Callable[[], None]:
    def repeated() -> None:
        with kernels.use(mode):
            for _ in range(repeats):
                run(operation, tensors)

    return repeated


def _operations() -> Any:
    """The C++ kernels, if they run here and the mode allows them, or the definitions."""
    return fused if kernels.fast() and fused.available() else plain


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`x @ weight.T + bias`: (tokens, in) to (tokens, out)."""
    return (onednn if kernels.fast() and onednn.available() else plain).linear(x, weight, bias)


def attention(batch: PackedBatch) -> Callable[..., Tensor]:
    """Attention within the texts of a batch: (tokens, 3 * dim) to (tokens, dim)."""
    return lambda qkv: cast(Tensor, _operations().attention_qkv(qkv, batch, heads=HEADS))


def add_norm(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`layer_norm(x + residual)`: (tokens, dim) each."""
    return cast(Tensor, _operations().add_norm(x, residual, weight, bias, eps=1e-12))


def gelu(x: Tensor) -> Tensor:
    """GELU of every element."""
    return cast(Tensor, _operations().gelu(x))


def batch_of(texts: int, shortest: int, longest: int) -> PackedBatch:
    """A batch of texts whose lengths rise evenly."""
    lengths = np.linspace(shortest, longest, texts).astype(np.int64)
    return pack(TokenizedTexts(np.zeros(int(lengths.sum()), np.int32), lengths, 0))
