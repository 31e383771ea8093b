"""The gradient cache: embed a batch in mini-batches, twice each, so that memory does not grow with the batch.

Losses over all pairs of a batch need all its embeddings at once, but not all that backward through the model needs.
Each mini-batch is first embedded for its embeddings alone. The loss gives their gradients, the cache; then each
mini-batch is embedded again, with the same dropout, and its gradients go back through the model (Gao et al. 2021,
https://arxiv.org/abs/2101.06983). Value and gradients are those of one batch, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn

from ..modules.recompute import recomputed
from ..packing import PackedBatch

Embed: TypeAlias = Callable[[PackedBatch], Tensor]  # texts to (texts, dim), in packed order


def mini_batches(loss: nn.Module, texts: PackedBatch) -> list[PackedBatch]:
    """Split texts, in packed order, as the loss asks: by number of tokens or of texts, or not at all."""
    if not getattr(loss, "cached", False):
        return [texts]
    tokens = cast("int | None", loss.mini_batch_num_tokens)
    return texts.cut_texts(cast(int, loss.mini_batch_size)) if tokens is None else texts.cut(tokens)


@dataclass(frozen=True)
class GradientCache:
    """Embed mini-batches; backward embeds each of them again.

    Attributes:
        embed: embeds one.
        after: called after each mini-batch of backward.
    """

    embed: Embed
    after: Callable[[], None]

    def __call__(self, mini: Sequence[PackedBatch]) -> Tensor:
        """Return the embeddings, (texts, dim), in packed order; one mini-batch alone is embedded once."""
        if len(mini) == 1:
            return self.embed(mini[0])
        return torch.cat(
            [recomputed(partial(self.embed, texts), device=texts.input_ids.device, after=self.after) for texts in mini]
        )
