"""The first half of an optimizer step: from batches to gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..cuda_graphs import Graphs, Recorder
from ..data.sampling import Batch
from ..errors import ConfigError
from ..losses import Loss
from ..model import EmbeddingModel
from ..modules import Dense, Dropout, LayerNorm, Normalize, Pooling, Transformer
from ..modules.encoder import Encoder
from ..modules.features import Features
from ..packing import PackedBatch
from ..transfer import moved
from .dataset import TrainingDataset
from .replay import Replay

# Tokens that are embedded with all that backward needs: of MiniLM some 10 GB in half precision on a GPU, 30 GB in
# float32. What has more is embedded in pieces, and each piece again in backward.
MOST_TOKENS = 131_072

_AMP_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Prepared(NamedTuple):
    """A batch, packed but not yet on the device; not packed in a replay."""

    dataset: int
    rows: NDArray[np.int64]
    batch: PackedBatch | None
    labels: Tensor | None


class Gradients:
    """Adds the gradients of batches to those of the parameters.

    Args:
        model: what is trained.
        losses: one for each data set.
        datasets: the rows.
        precision: "fp32", "fp16" or "bf16".
        scaler: of the losses, in fp16.
        drop: drops all gradients, where memory ran out and they are to be found again.
        replay: whose ways to follow, or None for packed training.
        record: turns work into its recording, or None for none. Gradients then have to stay where they are.
        most_tokens: that are embedded with all that backward needs; None for any number.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        losses: Sequence[nn.Module],
        datasets: Sequence[TrainingDataset],
        *,
        precision: str,
        scaler: torch.amp.GradScaler,
        drop: Callable[[], None],
        replay: Replay | None = None,
        record: Recorder[Tensor] | None = None,
        most_tokens: int | None = None,
    ) -> None:
        self._model, self._losses, self._datasets = model, losses, datasets
        self._dtype, self._scaler, self._replay = _AMP_DTYPES.get(precision), scaler, replay
        self._drop = drop
        self._record, self._most_tokens = record, most_tokens
        self._graphs: dict[tuple[int, int], Graphs[Tensor]] = {}
        self._told = False

    def prepare(self, update: Sequence[Batch]) -> list[Prepared]:
        """What can be done for an optimizer step before the one before it ends."""
        return [
            Prepared(
                dataset,
                rows,
                self._datasets[dataset].pack(rows) if self._replay is None else None,
                self._datasets[dataset].labels(rows),
            )
            for dataset, rows in update
        ]

    def __call__(self, update: Sequence[Prepared]) -> tuple[Tensor, int]:
        """Mean loss of the batches, (), and how many tokens they have.

        Raises:
            ConfigError: the memory of the device is too small, though texts are embedded in pieces.
        """
        while True:
            try:
                return self._added(update)
            except torch.OutOfMemoryError as error:
                reason = str(error).strip().split("\n")[0]
            # Not before the error is gone, which holds on to what was made until then.
            self._make_room(update, reason)

    def _added(self, update: Sequence[Prepared]) -> tuple[Tensor, int]:
        total = torch.zeros((), device=self._model.device)
        tokens = 0
        for given in update:
            if given.batch is not None:
                loss, count = self._packed(given, given.batch, len(update)), given.batch.tokens
            elif self._replay is not None:
                loss, count = self._replayed(given, len(update), self._replay)
            total = total + loss  # in float64 if the model is
            tokens += count
        return total, tokens

    def _make_room(self, update: Sequence[Prepared], reason: str) -> None:
        """Drop what was found of an update, and see to it that its largest batch is embedded in smaller pieces."""
        self._drop()
        self._graphs.clear()
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        batches = [given.batch for given in update if given.batch is not None]
        largest = max((batch.tokens for batch in batches), default=0)
        longest = max((batch.max_length for batch in batches), default=0)
        most = self._most_tokens or largest
        if not batches or (most < largest and most // 2 <= longest):  # then a piece was a single text already
            raise ConfigError(
                f"{self._model.device} has too little memory for a batch ({reason}); expected room for it: lower "
                f"batch_size or max_seq_length"
            )
        self._most_tokens = min(most, largest) // 2
        if not self._told:
            self._told = True
            warnings.warn(
                f"{self._model.device} has too little memory for a batch of {largest:,} tokens: from now on large "
                f"batches are embedded in pieces, twice each, which gives the same gradients and takes longer",
                stacklevel=2,
            )

    def _packed(self, given: Prepared, batch: PackedBatch, parts: int) -> Tensor:
        device = self._model.device
        batch = batch.to(device)
        labels = None if given.labels is None else moved([given.labels], device)[0]
        if self._most_tokens is not None and batch.tokens > self._most_tokens:
            return self._backward(self._embedded_in_pieces, batch, labels, given.dataset, parts)
        if self._record is None:
            return self._backward(self._embedded, batch, labels, given.dataset, parts)
        key = given.dataset, parts
        if key not in self._graphs:
            self._graphs[key] = Graphs(
                lambda filled, marks: self._backward(self._embedded, filled, marks, *key),
                device,
                fill_texts=False,
                record=self._record,
            )
        return self._graphs[key](batch, labels)

    def _backward(
        self,
        embed: Callable[[PackedBatch], Tensor],
        batch: PackedBatch,
        labels: Tensor | None,
        dataset: int,
        parts: int,
    ) -> Tensor:
        with self._autocast():
            sentences = embed(batch)[batch.restore]  # (columns * rows, dim)
        return self._slopes(list(sentences.chunk(self._datasets[dataset].column_count)), labels, dataset, parts)

    def _embedded(self, batch: PackedBatch) -> Tensor:
        """Embeddings in packed order: (texts, dim)."""
        features: Features = self._model(Features(batch))
        return features.sentences

    def _embedded_in_pieces(self, batch: PackedBatch) -> Tensor:
        """The same, of which backward embeds each piece again, with the same random draws."""

        def embedded(_: Tensor, piece: PackedBatch) -> Tensor:
            return self._embedded(piece)

        # The tensor tells on which device random numbers are to be drawn again.
        return torch.cat(
            [
                checkpoint(embedded, piece.input_ids, piece, use_reentrant=False)
                for piece in batch.cut((self._most_tokens or batch.tokens) // 2)
            ]
        )

    def _replayed(self, given: Prepared, parts: int, replay: Replay) -> tuple[Tensor, int]:
        columns = self._datasets[given.dataset].columns(given.rows)
        embeddings = replay.embed(self._model, columns)
        loss = self._slopes(embeddings, given.labels, given.dataset, parts)
        return loss, sum(len(text) for texts in columns for text in texts)

    def _slopes(self, embeddings: list[Tensor], labels: Tensor | None, dataset: int, parts: int) -> Tensor:
        value = self._losses[dataset](embeddings, labels)
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
            got = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ConfigError(
                f"got {got} from {type(self._losses[dataset]).__name__}; expected one number that depends on the "
                f"embeddings: return a scalar tensor with derivatives"
            )
        loss: Tensor = value / parts
        torch.autograd.backward(self._scaler.scale(loss))
        return loss.detach()

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._model.device.type, self._dtype) if self._dtype else nullcontext()


def recordable(model: EmbeddingModel, losses: Sequence[Loss]) -> bool:
    """Whether a step on a GPU launches the same for all batches of a size, and never waits for the device."""
    encoder = model.transformer.auto_model
    if not isinstance(encoder, Encoder) or not encoder.recordable or not all(loss.recordable for loss in losses):
        return False
    for module in model:
        if type(module) not in (Transformer, Pooling, Normalize, Dense, LayerNorm, Dropout):
            return False
        if isinstance(module, Pooling) and not (module.pooling_mode == ("mean",) and module.include_prompt):
            return False
    return True
