"""A loss in tiles of its rows, each with its gradient, so that no matrix of all pairs of texts is held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Tile: TypeAlias = Callable[..., Tensor]  # from a slice of rows, and the embeddings, to a scalar


def sum_of_tiles(tile: Tile, embeddings: Sequence[Tensor], *, rows: int, size: int) -> Tensor:
    """Return the sum of `tile(slice, *embeddings)` over slices of at most `size` of the `rows`, a scalar.

    With gradients, each tile is differentiated as soon as it is computed and then dropped: what is kept for backward
    are the gradients of the sum, as large as the embeddings. They are differentiable once.

    Args:
        tile: computes the scalar of some rows from `embeddings` alone.
        embeddings: what gradients are for; any shapes.
        rows: number of rows.
        size: largest number of rows in a tile.
    """
    slices = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
    if torch.is_grad_enabled() and any(part.requires_grad for part in embeddings):
        return cast(Tensor, _Tiles.apply(tile, slices, *embeddings))  # type: ignore[no-untyped-call]
    return torch.stack([tile(rows_of_tile, *embeddings) for rows_of_tile in slices]).sum()


class _Tiles(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tile: Tile, slices: Sequence[slice], *embeddings: Tensor) -> Tensor:
        leaves = [part.detach().requires_grad_(part.requires_grad) for part in embeddings]
        trained = [leaf for leaf in leaves if leaf.requires_grad]
        gradients = [torch.zeros_like(leaf) for leaf in trained]
        values = []
        for rows in slices:
            with torch.enable_grad():
                value = tile(rows, *leaves)
            values.append(value.detach())
            for total, part in zip(gradients, torch.autograd.grad(value, trained, allow_unused=True), strict=True):
                if part is not None:
                    total += part
        ctx.save_for_backward(*gradients)
        return torch.stack(values).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gradients = iter(ctx.saved_tensors)
        return None, None, *(grads[0] * next(gradients) if needed else None for needed in ctx.needs_input_grad[2:])
