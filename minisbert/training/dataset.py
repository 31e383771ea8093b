"""Training rows, tokenized once, and cut into packed batches."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.roles import TrainingRows
from ..packing import PackedBatch, pack
from ..text import TextTokenizer, TokenizedTexts


@dataclass(frozen=True)
class TrainingBatch:
    """All text columns of some rows, packed as one batch.

    Attributes:
        packed: the texts, column after column.
        columns: how many columns there are.
        labels: float32 (rows,), or None.
    """

    packed: PackedBatch
    columns: int
    labels: Tensor | None

    def to(self, device: torch.device) -> TrainingBatch:
        """The same batch on `device`."""
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        return TrainingBatch(self.packed.to(device), self.columns, labels)

    def split(self, embeddings: Tensor) -> list[Tensor]:
        """Embeddings in packed order, (texts, dim), to one (rows, dim) tensor for each column."""
        return list(embeddings[self.packed.restore].chunk(self.columns))


class TrainingDataset:
    """Tokenized rows."""

    def __init__(self, rows: TrainingRows, tokenizer: TextTokenizer) -> None:
        self._columns = len(rows.texts)
        self._rows = len(rows)
        self._tokens = TokenizedTexts.join([tokenizer(texts) for texts in rows.texts.values()])
        self._labels = None if rows.labels is None else torch.tensor(rows.labels, dtype=torch.float32)

    def __len__(self) -> int:
        return self._rows

    @property
    def truncated(self) -> int:
        """How many texts were cut to the model's maximum length."""
        return self._tokens.truncated

    @property
    def texts(self) -> int:
        """Number of texts in all columns."""
        return self._rows * self._columns

    def batch(self, rows: NDArray[np.int64]) -> TrainingBatch:
        """Pack all columns of `rows`."""
        texts = np.concatenate([rows + column * self._rows for column in range(self._columns)])
        labels = None if self._labels is None else self._labels[torch.from_numpy(rows)]
        return TrainingBatch(pack(self._tokens, texts), self._columns, labels)

    def fingerprint(self) -> str:
        """Digest of token ids, their division into texts and columns, and labels."""
        digest = hashlib.sha256(f"{self._columns} columns, {self._rows} rows".encode())
        digest.update(self._tokens.lengths.tobytes())
        digest.update(self._tokens.ids.tobytes())
        if self._labels is not None:
            digest.update(self._labels.numpy().tobytes())
        return digest.hexdigest()
