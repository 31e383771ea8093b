"""Contrastive loss over cosine similarities (InfoNCE), without ever holding the matrix of all pairs.

Forward streams over the candidates and keeps the largest score and the sum of each query; backward computes the scores
again, once for the slopes of the queries and once for those of the candidates. Rows are not normalized beforehand:
the inverses of their norms multiply the products in float32. The work on the other side's rows is cut into a fixed
number of parts, so that few rows fill a device too; partial results are added in one order.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from minisbert.errors import ConfigError

from .contrastive_kernels import contrast_backward, contrast_finish, contrast_forward, contrast_norms
from .launch import DTYPES, Variant, ceil_div, check, on_device, options, precision

_PROGRAMS = 264  # wanted of a launch: two for each multiprocessor of an H200


class Tile(NamedTuple):
    """Own rows and other rows that a program holds at once, columns of a step of their product, warps and stages."""

    rows: int
    others: int
    step: int
    warps: int
    stages: int


def supports(dim: int) -> bool:
    """Whether the loss takes vectors of size `dim`."""
    return dim > 0 and dim % 16 == 0


def forward_tile(dtype: torch.dtype) -> Tile:
    """What a program of the forward pass takes: a static table."""
    return Tile(64, 64, 32, 4, 2) if dtype == torch.float32 else Tile(64, 128, 64, 4, 3)


def backward_tile(dtype: torch.dtype) -> Tile:
    """What a program of the backward pass takes."""
    return Tile(32, 32, 32, 8, 2) if dtype == torch.float32 else Tile(64, 64, 64, 8, 2)


def contrastive(queries: Tensor, candidates: Tensor, *, scale: float = 20.0, ids: Tensor | None = None) -> Tensor:
    """Mean cross entropy of each query's own candidate among all: a scalar in float32.

    Args:
        queries: (queries, dim), float32, float16 or bfloat16, contiguous, on a CUDA device; dim a multiple of 16.
        candidates: (candidates, dim), the first of them the queries' own.
        scale: multiplies the cosine similarities.
        ids: int64, (candidates,): what has the id of a query's own candidate, and is another, does not count for it.
    """
    check("queries", queries, (None, None), *DTYPES)
    check("candidates", candidates, (None, queries.shape[1]), queries.dtype)
    if not supports(queries.shape[1]):
        raise ConfigError(f"got vectors of size {queries.shape[1]}; expected a multiple of 16")
    if not 0 < queries.shape[0] <= candidates.shape[0]:
        raise ConfigError(
            f"got {queries.shape[0]} queries and {candidates.shape[0]} candidates; expected a candidate for each query"
        )
    if ids is not None:
        check("ids", ids, (candidates.shape[0],), torch.int64)
    loss, *_ = forward(queries, candidates, ids, scale)
    return cast(Tensor, loss)


@torch.library.custom_op("minisbert::contrastive", mutates_args=())
def forward(
    queries: Tensor, candidates: Tensor, ids: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss, the log of each query's sum, (queries,), and the inverse norms of queries and candidates."""
    rows, others = queries.shape[0], candidates.shape[0]
    tile = forward_tile(queries.dtype)
    blocks = ceil_div(rows, tile.rows)
    parts, per_part = _parts(blocks, ceil_div(others, tile.others))
    sums = torch.empty(2, parts, rows, dtype=torch.float32, device=queries.device)
    with on_device(queries):
        norms = _inverse_norms(queries), _inverse_norms(candidates)
        contrast_forward[(blocks, parts)](
            *(queries, candidates, *norms, ids, sums[0], sums[1], rows, others, per_part, scale),
            **_constants(tile, queries.shape[1], queries.dtype),
            **options(tile.warps, tile.stages),
        )
    lse, own = sums[0].logsumexp(0), sums[1].sum(0)
    return (lse - own).mean(), lse, *norms


@torch.library.custom_op("minisbert::contrastive_backward", mutates_args=())
def backward(
    grad: Tensor,
    queries: Tensor,
    candidates: Tensor,
    ids: Tensor | None,
    lse: Tensor,
    query_norms: Tensor,
    candidate_norms: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """The slopes of the loss for queries and candidates."""
    factor = (grad.float() / queries.shape[0]).reshape(1)
    with on_device(queries):
        return (
            _slope(queries, candidates, query_norms, candidate_norms, ids, lse, factor, scale, of_queries=True),
            _slope(candidates, queries, candidate_norms, query_norms, ids, lse, factor, scale, of_queries=False),
        )


@forward.register_fake
def _(queries: Tensor, candidates: Tensor, ids: Tensor | None, scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, others = queries.shape[0], candidates.shape[0]
    one, *vectors = (queries.new_empty(shape, dtype=torch.float32) for shape in ((), (rows,), (rows,), (others,)))
    return one, vectors[0], vectors[1], vectors[2]


@backward.register_fake
def _(
    grad: Tensor,
    queries: Tensor,
    candidates: Tensor,
    ids: Tensor | None,
    lse: Tensor,
    query_norms: Tensor,
    candidate_norms: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(queries), torch.empty_like(candidates)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.scale = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*tensors, *output[1:])


def _slopes(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor, Tensor, None, None]:
    return *backward(grad, *ctx.saved_tensors, ctx.scale), None, None


forward.register_autograd(_slopes, setup_context=_remember)


def _inverse_norms(x: Tensor) -> Tensor:
    out = torch.empty(x.shape[0], dtype=torch.float32, device=x.device)
    contrast_norms[(ceil_div(x.shape[0], 16),)](x, out, x.shape[0], DIM=x.shape[1], ROWS=16, **options(4))
    return out


def _slope(
    x: Tensor,
    others: Tensor,
    norms: Tensor,
    other_norms: Tensor,
    ids: Tensor | None,
    lse: Tensor,
    factor: Tensor,
    scale: float,
    *,
    of_queries: bool,
) -> Tensor:
    rows, dim = x.shape
    tile = backward_tile(x.dtype)
    blocks, groups = ceil_div(rows, tile.rows), ceil_div(dim, 3 * _chunk(x.dtype))
    parts, per_part = _parts(blocks * groups, ceil_div(others.shape[0], tile.others))
    sums = torch.empty(parts, rows, dim, dtype=torch.float32, device=x.device)
    along = torch.empty(parts, rows, dtype=torch.float32, device=x.device)
    contrast_backward[(blocks, parts, groups)](
        *(x, others, norms, other_norms, ids, lse, sums, along, rows, others.shape[0], per_part, scale),
        OF_QUERIES=of_queries,
        **_chunks(dim, x.dtype),
        **_constants(tile, dim, x.dtype),
        **options(tile.warps, tile.stages),
    )
    out = torch.empty_like(x)
    contrast_finish[(rows,)](x, norms, sums, along, factor, out, rows, parts, scale, DIM=dim, **options(4))
    return out


def _parts(blocks: int, other_blocks: int) -> tuple[int, int]:
    """Into how many parts the other rows are cut, and blocks of them in each."""
    per_part = ceil_div(other_blocks, max(1, min(other_blocks, _PROGRAMS // blocks)))
    return ceil_div(other_blocks, per_part), per_part


def _chunk(dtype: torch.dtype) -> int:
    """Columns of slopes that one product gives; three products for each one in float32 leave fewer registers."""
    return 64 if dtype == torch.float32 else 128


def _chunks(dim: int, dtype: torch.dtype) -> dict[str, int]:
    return {"CHUNK": _chunk(dtype), "CHUNKS": min(3, ceil_div(dim, _chunk(dtype)))}


def _constants(tile: Tile, dim: int, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "DIM": dim,
        "ROWS": tile.rows,
        "OTHERS": tile.others,
        "STEP": tile.step,
        "PRECISION": precision(dtype),
    }


def variants() -> list[Variant]:
    """What vectors of 384 in bfloat16 and float32 come to, with and without ids, and of 768 in bfloat16."""
    found = []
    for dim, dtype, marked in ((384, torch.bfloat16, False), (384, torch.float32, True), (768, torch.bfloat16, True)):
        values = f"*{DTYPES[dtype]}"
        numbers = {"rows": "i32", "others": "i32", "per_part": "i32", "scale": "fp32"}
        absent: dict[str, Any] = {} if marked else {"ids": None}
        own = {"x": values, "y": values, "x_norms": "*fp32", "y_norms": "*fp32", "ids": "*i64"}
        tile = forward_tile(dtype)
        constants = {**_constants(tile, dim, dtype), **absent}
        signature = {**own, "lse": "*fp32", "own": "*fp32", **numbers}
        found.append(Variant(contrast_forward, signature, constants, tile.warps, tile.stages))
        tile = backward_tile(dtype)
        signature = {**own, "lse": "*fp32", "sums": "*fp32", "along": "*fp32", **numbers}
        for of_queries in (True, False):
            constants = {**_constants(tile, dim, dtype), **absent, "OF_QUERIES": of_queries, **_chunks(dim, dtype)}
            found.append(Variant(contrast_backward, signature, constants, tile.warps, tile.stages))
        found.append(
            Variant(contrast_norms, {"x": values, "out": "*fp32", "rows": "i32"}, {"DIM": dim, "ROWS": 16}, 4, 1)
        )
        signature = dict.fromkeys(("x_norms", "sums", "along", "factor"), "*fp32")
        signature |= {"x": values, "out": values, "rows": "i32", "parts": "i32", "scale": "fp32"}
        found.append(Variant(contrast_finish, signature, {"DIM": dim}, 4, 1))
    return found
