"""Shared by the tests of the Triton kernels.

Without a GPU the kernels run under Triton's interpreter, which has to be chosen before they are defined: test_triton.py
starts one process with TRITON_INTERPRET=1 for all files test_triton_<operation>.py. In an ordinary process the same
tests are there for a CUDA device only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

import triton
import triton.language as tl
from minisbert.kernels.triton_ops.launch import keep, launch

from minisbert import cuda_graphs, kernels
from minisbert.packing import PackedBatch, pack
from minisbert.text import TokenizedTexts

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses deterministic work
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# Largest difference from the definition in float64, as a share of the largest value.
FORWARD = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
BACKWARD = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3.2e-2}

pytestmark = [] if INTERPRETED else [pytest.mark.gpu]  # for the files to take over


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """New memory holds no numbers: what is not written shows."""
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the interpreter the CPU stands for the GPU."""
    if INTERPRETED:
        monkeypatch.setattr(kernels, "on_gpu", lambda values: True)
        monkeypatch.setattr(cuda_graphs, "CudaGraphs", lambda device: recorded)


def recorded(work: Callable[[], Any]) -> Callable[[], Any]:
    """A CUDA graph; without a GPU, what one does: nothing when recorded, then the same work into the same memory."""
    if not INTERPRETED:
        return cuda_graphs.CudaGraphs(torch.device(DEVICE))(work)
    results: list[Tensor] = []

    def replay() -> Tensor:
        fresh = work()
        if results:
            with torch.no_grad():
                results[0].copy_(fresh)
        else:
            results.append(fresh)
        return results[0]

    return replay


def batch_of(lengths: list[int]) -> PackedBatch:
    """A batch of texts of such lengths on the device."""
    return pack(TokenizedTexts(np.zeros(sum(lengths), np.int32), np.array(lengths, np.int64), 0)).to(DEVICE)


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Normal numbers on the device, the same for each dtype but for rounding."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(DEVICE)


def seed_of(number: int) -> Tensor:
    """A seed of dropout on the device."""
    return torch.tensor([number], device=DEVICE)


def dropout_mask(seed: Tensor, rows: int, columns: int, dropout: float, *, first_row: int = 0) -> Tensor:
    """Mask of the elements that the kernels keep under `seed`: bool, (rows, columns).

    In `attention_qkv` rows are token * heads + head and columns places in the text; elsewhere rows are tokens and
    columns dimensions.
    """
    out = torch.empty(rows, columns, dtype=torch.int8, device=seed.device)
    grid = triton.cdiv(rows, 16), triton.cdiv(columns, 64)
    launch(_mask, grid, seed, out, rows, columns, first_row, dropout, ROWS=16, COLUMNS=64)
    return out.bool()


@triton.jit(do_not_specialize=["rows", "columns", "first_row"], do_not_specialize_on_alignment=["seed"])
def _mask(seed, out, rows, columns, first_row, dropout, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # noqa: N803
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * COLUMNS
    column = first + tl.arange(0, COLUMNS)
    kept = keep(tl.load(seed), first_row + row, first, COLUMNS, dropout)
    index = row.to(tl.int64)[:, None] * columns + column[None, :]
    tl.store(out + index, kept.to(tl.int8), mask=(row < rows)[:, None] & (column < columns)[None, :])


def difference(got: Tensor, expected: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    assert got.shape == expected.shape
    assert bool(got.isfinite().all())
    if not got.numel():
        return 0.0
    return float((got.double() - expected.double()).abs().max()) / max(float(expected.abs().max()), 1e-3)


def close(got: Tensor, expected: Tensor, bound: float) -> None:
    """Hold the difference to a bound."""
    assert difference(got, expected) <= bound, difference(got, expected)


def gradients(function: Callable[..., Tensor], *inputs: Tensor | None) -> list[Tensor]:
    """The output, and the gradient of its weighted sum with respect to each input."""
    leaves = [None if value is None else value.detach().clone().requires_grad_(True) for value in inputs]
    output = function(*leaves)
    angles = torch.arange(output.numel(), dtype=torch.float64, device=output.device).view_as(output)
    weights = torch.round(torch.cos(angles) * 64) / 64  # the same numbers in every dtype
    output.backward(weights.to(output.dtype))
    for leaf, value in zip(leaves, inputs, strict=True):  # nothing writes to its inputs
        assert leaf is None or torch.equal(leaf.nan_to_num(), value.nan_to_num())
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf is not None and leaf.grad is not None)]
