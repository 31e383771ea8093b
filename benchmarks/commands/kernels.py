"""Each operation that goes through the kernel dispatch against its plain definition, on the model's shapes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import timing
import torch
from machine import table
from torch import Tensor

from minisbert import kernels
from minisbert.kernels import plain
from minisbert.packing import PackedBatch, pack
from minisbert.text import TokenizedTexts

DIM, HEADS = 384, 12
LINEAR = ((384, 384), (384, 1_536), (1_536, 384))
TEXTS = {"128 texts of 8 to 24 tokens": (128, 8, 24), "16 texts of 64 to 256 tokens": (16, 64, 256)}
MODES: tuple[kernels.Mode, ...] = ("auto", "reference")
REPEATS, QUICK_REPEATS = 20, 3


def cases() -> dict[str, tuple[Callable[..., Tensor], list[Tensor]]]:
    """Operation and shapes, with the operation as a function of tensors, and those."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    found: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {}
    for inputs, outputs in LINEAR:
        tensors = [normal(2_048, inputs), normal(outputs, inputs) / inputs**0.5, normal(outputs)]
        found[f"linear, 2,048 tokens, {inputs} to {outputs}"] = (kernels.linear, tensors)
    for name, (texts, shortest, longest) in TEXTS.items():
        batch = _batch(np.linspace(shortest, longest, texts).astype(np.int64))
        tokens = batch.tokens
        found[f"attention, {name}"] = (_attention(batch), [normal(tokens, 3 * DIM)])
        found[f"add_norm, {name}"] = (_add_norm, [normal(tokens, DIM), normal(tokens, DIM), normal(DIM), normal(DIM)])
        found[f"gelu, {name}"] = (_gelu, [normal(tokens, 4 * DIM)])
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time both versions in turn, forward and with the backward pass."""
    repeats = QUICK_REPEATS if options.quick else REPEATS
    result = {}
    for name, (operation, tensors) in cases().items():
        outputs = {mode: _values(operation, tensors, mode) for mode in MODES}
        largest = [
            float((fast - plain).abs().max()) for fast, plain in zip(outputs["auto"], outputs["reference"], strict=True)
        ]
        times = {}
        for kind, run in (("forward", _forward), ("both", _both)):
            runs = {mode: _repeated(run, operation, tensors, mode, repeats) for mode in MODES}
            seconds = timing.interleaved(runs, options.rounds)
            times[kind] = {
                "seconds": {mode: timing.spread(taken)["median"] / repeats for mode, taken in seconds.items()},
                "times_as_fast": timing.times_as_fast(seconds["auto"], seconds["reference"]),
            }
        result[name] = {**times, "max_difference": {"output": largest[0], "gradients": max(largest[1:])}}
    return {"operations": result}


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
        output.backward(torch.linspace(-1, 1, output.numel()).view_as(output))
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


def _operations(heads: int = 1, *, dim: int = DIM) -> Any:
    """The fused operations, where they are to be had, or the plain ones."""
    return kernels.fused(torch.empty(1, dim), heads=heads) or plain


def _attention(batch: PackedBatch) -> Callable[..., Tensor]:
    return lambda qkv: cast(Tensor, _operations(HEADS).attention_qkv(qkv, batch, heads=HEADS))


def _add_norm(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return cast(Tensor, _operations().add_norm(x, residual, weight, bias, eps=1e-12))


def _gelu(x: Tensor) -> Tensor:
    return cast(Tensor, _operations(dim=x.shape[1]).gelu(x))


def _batch(lengths: Any) -> PackedBatch:
    return pack(TokenizedTexts(np.zeros(int(lengths.sum()), np.int32), lengths, 0))
