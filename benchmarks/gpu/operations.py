"""Each operation that has a Triton kernel against its plain definition, in every precision."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import Any, cast

import timing
import torch
from commands.kernels import DIM, Case, add_norm, against_plain, attention, batch_of, gelu
from torch import Tensor

from gpu.sizes import DTYPES, Sizes, sizes_for
from minisbert import kernels
from minisbert.kernels import plain
from minisbert.packing import PackedBatch

WORDS, POSITIONS, TYPES = 30_522, 512, 2  # rows of MiniLM's tables


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time both versions of each operation in turn, in each precision; what fails is told and left out."""
    sizes, clock = sizes_for(options), timing.clock_of(options.device)
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for precision, dtype in DTYPES.items():
        for name, case in cases(options.device, getattr(torch, dtype), sizes).items():
            full = f"{name}, {precision}"
            try:
                found |= against_plain({full: case}, options.rounds, sizes.repeats, clock=clock)
            except Exception as error:  # the others can still be measured
                missing[full] = f"{type(error).__name__}: {error}".splitlines()[0]
    return {"operations": found, "not_available": missing}


def cases(device: str, dtype: torch.dtype, sizes: Sizes) -> dict[str, Case]:
    """Operation and shapes, with the operation as a function of tensors, and those."""
    draw = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, device=device).to(dtype)

    found: dict[str, Case] = {}
    for texts, shortest, longest in sizes.batches:
        name = f"{texts:,} texts of {shortest} to {longest} tokens"
        batch = batch_of(texts, shortest, longest).to(device)
        tokens = batch.tokens
        found[f"attention, {name}"] = (attention(batch), [normal(tokens, 3 * DIM)])
        found[f"add_norm, {name}"] = (add_norm, [normal(tokens, DIM), normal(tokens, DIM), normal(DIM), normal(DIM)])
        found[f"gelu, {name}"] = (gelu, [normal(tokens, 4 * DIM)])
        found[f"mean_pool, {name}"] = (_mean_pool(batch), [normal(tokens, DIM)])
        ids = torch.randint(WORDS, (tokens,), generator=draw, device=device)
        tables = [normal(rows, DIM) for rows in (WORDS, POSITIONS, TYPES)]
        found[f"embed_norm, {name}"] = (_embed_norm(ids, batch.positions), [*tables, normal(DIM), normal(DIM)])
    found[f"contrastive, {sizes.pairs:,} pairs"] = (_contrastive, [normal(sizes.pairs, DIM), normal(sizes.pairs, DIM)])
    return found


def _mean_pool(batch: PackedBatch) -> Callable[..., Tensor]:
    return lambda values: kernels.choose(values, batch).mean_pool(values, batch)


def _embed_norm(ids: Tensor, positions: Tensor) -> Callable[..., Tensor]:
    def operation(word: Tensor, position: Tensor, token_type: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        chosen = _triton("embedding", word)
        return cast(
            Tensor, chosen.embed_norm(ids, positions, None, word, position, token_type, weight, bias, eps=1e-12)
        )

    return operation


def _contrastive(queries: Tensor, candidates: Tensor) -> Tensor:
    return cast(Tensor, _triton("contrastive", queries).contrastive(queries, candidates))


def _triton(module: str, x: Tensor) -> Any:
    """The Triton version, or the plain one in its mode and on a CPU, where Triton compiles nothing."""
    fast = x.is_cuda and kernels.fast()
    return importlib.import_module(f"minisbert.kernels.triton_ops.{module}") if fast else plain
