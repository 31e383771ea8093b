"""The losses over all pairs of a batch, with the gradient cache: for batches larger than memory.

Each has the value and the gradients of the loss without "Cached" in its name, up to rounding. In training, texts are
embedded `mini_batch_size` at a time, twice each, and the matrix of all pairs is made in tiles of `mini_batch_size`
rows (Gao et al. 2021, https://arxiv.org/abs/2101.06983).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..errors import check_count
from ..similarity import SimilarityMatrix, cos_sim
from .guided import GISTEmbedLoss, MarginStrategy
from .ranking import BOTH, PLAIN, Direction, HardnessMode, MultipleNegativesRankingLoss, PartitionMode

Tile: TypeAlias = Callable[..., Tensor]  # from a slice of rows, and the embeddings, to a scalar


class CachedMultipleNegativesRankingLoss(MultipleNegativesRankingLoss):
    """`MultipleNegativesRankingLoss` with the gradient cache.

    Columns are (anchor, positive) and then any number of hard negatives; labels are ignored (Gao et al. 2021,
    https://arxiv.org/abs/2101.06983).

    Args:
        model: not used; accepted because code for the reference passes it.
        scale: multiplies the similarities, the inverse of a temperature.
        similarity_fct: all pairs, (n, d) and (m, d) to (n, m): `util.cos_sim` or `util.dot_score`.
        mini_batch_size: texts that are embedded at a time, and rows in a tile of the matrix of all pairs.
        mini_batch_num_tokens: tokens that are embedded at a time; takes the place of `mini_batch_size` there.
        gather_across_devices: see `MultipleNegativesRankingLoss`.
        directions: see `MultipleNegativesRankingLoss`.
        partition_mode: see there.
        show_progress_bar: not used; accepted because code for the reference passes it.
        hardness_mode: see there.
        hardness_strength: see there.

    Raises:
        ConfigError: an option is not valid, as there; or a size is no whole number of at least 1.
    """

    cached = True

    def __init__(
        self,
        model: object = None,
        *,
        scale: float = 20.0,
        similarity_fct: SimilarityMatrix = cos_sim,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        directions: Sequence[Direction] = PLAIN,
        partition_mode: PartitionMode = "joint",
        show_progress_bar: bool = False,
        hardness_mode: HardnessMode | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        super().__init__(
            model,
            scale=scale,
            similarity_fct=similarity_fct,
            gather_across_devices=gather_across_devices,
            directions=directions,
            partition_mode=partition_mode,
            hardness_mode=hardness_mode,
            hardness_strength=hardness_strength,
        )
        self.recordable = False  # autograd embeds again, which a CUDA graph does not capture
        self.mini_batch_size, self.mini_batch_num_tokens = _sizes(mini_batch_size, mini_batch_num_tokens)

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the loss of two or more (batch, dim) tensors, a scalar."""
        anchors, texts = self.ranked(embeddings)
        own = len(embeddings[0])  # the rows of other processes follow
        if (value := self.streamed(anchors[:own], texts)) is not None:
            return value
        total = sum_of_tiles(self.tile, (anchors, texts), rows=own, size=self.mini_batch_size)
        return total * (len(anchors) / own)

    def tile(self, rows: slice, anchors: Tensor, texts: Tensor) -> Tensor:
        """Return the share of some rows in the mean over all, a scalar; the arguments are those of `rank_all`."""
        losses = self.rank_all(anchors, texts, rows)
        return losses.mean() * len(losses) / len(anchors)

    @property
    def paper(self) -> str:
        """The name of the paper to cite: that on the gradient cache."""
        return type(self).__name__

    def get_config_dict(self) -> dict[str, Any]:
        """Return all settings."""
        return _with_sizes(super().get_config_dict(), self, after="similarity_fct")


class CachedMultipleNegativesSymmetricRankingLoss(CachedMultipleNegativesRankingLoss):
    """`MultipleNegativesSymmetricRankingLoss` with the gradient cache.

    It is `CachedMultipleNegativesRankingLoss(directions=("query_to_doc", "doc_to_query"),
    partition_mode="per_direction")`; the reference deprecates this name.

    Args:
        model: not used; accepted because code for the reference passes it.
        scale: multiplies the similarities, the inverse of a temperature.
        similarity_fct: all pairs, (n, d) and (m, d) to (n, m): `util.cos_sim` or `util.dot_score`.
        mini_batch_size: see `CachedMultipleNegativesRankingLoss`.
        mini_batch_num_tokens: see there.
        gather_across_devices: see there.
        show_progress_bar: not used; accepted because code for the reference passes it.

    Raises:
        ConfigError: the scale is not positive, or a size is no whole number of at least 1.
    """

    def __init__(
        self,
        model: object = None,
        *,
        scale: float = 20.0,
        similarity_fct: SimilarityMatrix = cos_sim,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(
            model,
            scale=scale,
            similarity_fct=similarity_fct,
            mini_batch_size=mini_batch_size,
            mini_batch_num_tokens=mini_batch_num_tokens,
            gather_across_devices=gather_across_devices,
            directions=BOTH,
            partition_mode="per_direction",
        )


class CachedGISTEmbedLoss(GISTEmbedLoss):
    """`GISTEmbedLoss` with the gradient cache; the guide embeds texts in mini-batches too.

    Columns are (anchor, positive) or (anchor, positive, negative); labels are ignored (Solatorio 2024,
    https://arxiv.org/abs/2402.16829; Gao et al. 2021, https://arxiv.org/abs/2101.06983).

    Args:
        model: not used; accepted because code for the reference passes it.
        guide: the other model, a SentenceTransformer. It has its own tokenizer, and is neither trained nor saved.
        temperature: see `GISTEmbedLoss`.
        mini_batch_size: texts that are embedded at a time, and most rows in a tile of the matrix of all pairs.
        mini_batch_num_tokens: tokens that are embedded at a time; takes the place of `mini_batch_size` there.
        show_progress_bar: not used; accepted because code for the reference passes it.
        margin_strategy: see `GISTEmbedLoss`.
        margin: see there.
        contrast_anchors: see there.
        contrast_positives: see there.
        gather_across_devices: see there.

    Raises:
        ConfigError: an option is not valid, as there; or a size is no whole number of at least 1.
    """

    cached = True
    largest_tile = 2**24  # numbers, 64 MB, in the products of single pairs that a guide is asked about

    def __init__(
        self,
        model: object,
        guide: nn.Module,
        *,
        temperature: float = 0.01,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
        margin_strategy: MarginStrategy = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__(
            model,
            guide,
            temperature=temperature,
            margin_strategy=margin_strategy,
            margin=margin,
            contrast_anchors=contrast_anchors,
            contrast_positives=contrast_positives,
            gather_across_devices=gather_across_devices,
        )
        self.mini_batch_size, self.mini_batch_num_tokens = _sizes(mini_batch_size, mini_batch_num_tokens)

    def forward(
        self, embeddings: Sequence[Tensor], labels: Tensor | None = None, guided: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return the loss of two or three (batch, dim) tensors and as many of the guide, (batch, size), a scalar."""
        ours, theirs = self.judged(embeddings, guided)
        batch, count = len(embeddings[0]), len(ours)

        def tile(rows: slice, *columns: Tensor) -> Tensor:
            targets = torch.arange(rows.start, rows.stop, device=columns[0].device)
            scores = self.scores(columns[:count], columns[count:], rows)
            return F.cross_entropy(scores, targets) * len(scores) / batch

        row = len(ours[0]) * max(part.shape[1] for part in (*ours, *theirs))  # numbers for all pairs of one
        size = min(self.mini_batch_size, max(1, self.largest_tile // row))
        return sum_of_tiles(tile, (*ours, *theirs), rows=batch, size=size)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the guide and all settings."""
        return _with_sizes(super().get_config_dict(), self, after="temperature")


def _sizes(texts: int, tokens: int | None) -> tuple[int, int | None]:
    """Return both sizes of a mini-batch after checking them."""
    size = check_count(texts, "mini_batch_size")
    return size, tokens if tokens is None else check_count(tokens, "mini_batch_num_tokens")


def _with_sizes(config: dict[str, Any], of: Any, *, after: str) -> dict[str, Any]:
    """Return a loss's settings with the sizes of its mini-batches after one of them, as the reference prints them."""
    items, place = list(config.items()), list(config).index(after) + 1
    sizes = [(name, getattr(of, name)) for name in ("mini_batch_size", "mini_batch_num_tokens")]
    return dict([*items[:place], *sizes, *items[place:]])


# ---- tiles ----------------------------------------------------------------------------------------------------------


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
    return reduce(torch.add, [tile(rows_of_tile, *embeddings) for rows_of_tile in slices])


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
        return reduce(torch.add, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gradients = iter(ctx.saved_tensors)
        return None, None, *(grads[0] * next(gradients) if needed else None for needed in ctx.needs_input_grad[2:])
