"""The inputs of losses that are no embeddings by the model: those from every layer, and columns in other forms."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from ..losses import Loss
from ..model import EmbeddingModel
from ..modules.features import Features
from ..packing import PackedBatch
from .dataset import TrainingBatch


class Layers:
    """The embeddings of each column, (rows, dim), from each layer: those of words first, the last layer last.

    The texts go through the encoder once, at the start; what follows it runs for each layer that is asked for.

    Args:
        model: embeds the texts.
        batch: the texts.
        computing: computes a block of code in the precision of the run.
    """

    def __init__(
        self, model: EmbeddingModel, batch: TrainingBatch, computing: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self._model, self._batch, self._computing = model, batch, computing
        self._tokens: list[list[Tensor]] = []  # for each packed batch what each layer makes of it: (tokens, dim)
        self._last: list[Tensor] = []
        with computing():
            for texts, columns in zip(batch.texts, batch.columns, strict=True):
                layers: list[Tensor] = []
                sentences: Tensor = model(Features(texts, layer_embeddings=layers)).sentences
                self._tokens.append(layers)
                self._last += sentences[texts.restore].chunk(columns)

    def __len__(self) -> int:
        return len(self._tokens[0])

    def __getitem__(self, layer: int, /) -> list[Tensor]:
        if layer == len(self) - 1:
            return self._last
        with self._computing():
            return [
                column
                for texts, columns, layers in zip(self._batch.texts, self._batch.columns, self._tokens, strict=True)
                for column in self._model.after_transformer(
                    Features(texts, token_embeddings=layers[layer], layer_embeddings=layers)
                )
                .sentences[texts.restore]
                .chunk(columns)
            ]


def in_forms(
    loss: Loss, batch: TrainingBatch, embed: Callable[[PackedBatch], Tensor]
) -> tuple[list[Tensor], list[PackedBatch]]:
    """Return the columns of a batch in the forms that the loss names: embeddings, (rows, dim), and tokens.

    Args:
        loss: it has `forms`.
        batch: each of its columns is packed by itself.
        embed: embeds by the model, in packed order.
    """
    embeddings, tokens = [], []
    for texts, form in zip(batch.texts, loss.forms, strict=True):
        if form == "tokens":
            tokens.append(texts)
        elif form == "model":
            embeddings.append(embed(texts)[texts.restore])
        elif loss.guide is not None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and loss.trains_guide):
                embeddings.append(loss.guide(Features(texts)).sentences[texts.restore])
    return embeddings, tokens
