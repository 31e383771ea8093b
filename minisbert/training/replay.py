"""The reference Trainer's forward pass and random draws, in its order.

With the same seed, rows and settings, losses and final weights are then bitwise those of sentence-transformers 5.1 or
6.2 on the CPU. What it takes, beside the order of rows and the optimizer, which packed training shares:

- every column of a batch is padded to its longest text and run by itself, padding included, because dropout is drawn
  for padding too; from three columns on, 6.2 pads all but the first to one width and runs them together;
- at the start of each epoch, and at each evaluation, the reference's data loader draws one number from the global
  generator;
- the definitions in `kernels/plain.py` are used, never a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..losses import Loss, MultipleNegativesRankingLoss
from ..model import EmbeddingModel
from ..modules.features import Features
from ..packing import pack_padded
from .config import ReplayVersion


def draw_for_loader() -> None:
    """Draw what a data loader of the reference draws when it is iterated: one int64."""
    torch.empty((), dtype=torch.int64).random_()


class _CrossEntropyRanking(MultipleNegativesRankingLoss):
    """The ranking loss as 5.1 computes it, which decides the last bit."""

    def rank(self, scores: Tensor) -> Tensor:
        return F.cross_entropy(scores, torch.arange(len(scores)))


def loss_of(loss: Loss, version: ReplayVersion) -> Loss:
    """The loss in the form of a version of the reference."""
    if version == "5.1" and type(loss) is MultipleNegativesRankingLoss:
        return _CrossEntropyRanking(scale=loss.scale, similarity_fct=loss.similarity_fct)
    return loss


def forward(
    model: EmbeddingModel, columns: Sequence[Sequence[NDArray[np.int32]]], *, version: ReplayVersion
) -> list[Tensor]:
    """Embed the columns of a batch: one (rows, dim) tensor for each.

    Args:
        model: what to run.
        columns: ids of each text, column by column.
        version: whose order to follow.
    """
    padding = model.transformer.padding_token
    first, *others = columns
    if version == "6.2" and len(others) > 1:
        merged = list(chain.from_iterable(others))
        return [_embed(model, first, padding), *_embed(model, merged, padding).chunk(len(others))]
    return [_embed(model, texts, padding) for texts in columns]


def _embed(model: EmbeddingModel, texts: Sequence[NDArray[np.int32]], padding: int) -> Tensor:
    batch = pack_padded(texts, padding=padding).to(model.device)
    embedded: Features = model(Features(batch))
    return embedded.sentences
