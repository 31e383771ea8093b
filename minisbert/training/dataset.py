"""Training rows, tokenized once, and cut into packed batches."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.roles import TrainingRows
from ..packing import PackedBatch, pack
from ..text import TextTokenizer, TokenizedTexts

_BLOCK = 16_384  # texts; what the tokenizer makes of one text takes some fifty times the memory of its ids


class TrainingDataset:
    """Tokenized rows.

    Attributes:
        column_count: number of text columns.
    """

    def __init__(self, rows: TrainingRows, tokenizer: TextTokenizer) -> None:
        self.column_count = len(rows.texts)
        self._rows = len(rows)
        self._tokens = TokenizedTexts.join(
            [
                tokenizer(texts[start : start + _BLOCK], first=start)
                for texts in rows.texts.values()
                for start in range(0, max(1, len(texts)), _BLOCK)
            ]
        )
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
        return self._rows * self.column_count

    @property
    def token_counts(self) -> NDArray[np.int64]:
        """Tokens of each text after the cut: (columns, rows)."""
        return self._tokens.lengths.reshape(self.column_count, self._rows)

    def pack(self, rows: NDArray[np.int64]) -> PackedBatch:
        """Pack all columns of `rows`; `restore` leads to the rows of the first column, then of the next."""
        return pack(self._tokens, np.concatenate(self._texts(rows)))

    def columns(self, rows: NDArray[np.int64]) -> list[list[NDArray[np.int32]]]:
        """Token ids of each text of `rows`, column by column."""
        ids, offsets = self._tokens.ids, self._tokens.offsets
        return [[ids[offsets[text] : offsets[text + 1]] for text in texts] for texts in self._texts(rows)]

    def labels(self, rows: NDArray[np.int64]) -> Tensor | None:
        """Labels of `rows`: float32, or None."""
        return None if self._labels is None else self._labels[torch.from_numpy(rows)]

    def fingerprint(self) -> str:
        """Digest of token ids, their division into texts and columns, and labels."""
        digest = hashlib.sha256(f"{self.column_count} columns, {self._rows} rows".encode())
        digest.update(self._tokens.lengths.tobytes())
        digest.update(self._tokens.ids.tobytes())
        if self._labels is not None:
            digest.update(self._labels.numpy().tobytes())
        return digest.hexdigest()

    def _texts(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Numbers of the texts of `rows`, column by column."""
        return [rows + column * self._rows for column in range(self.column_count)]
