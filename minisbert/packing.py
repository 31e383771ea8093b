"""Pack token ids into batches: many texts as one matrix, without padding.

From the embedding layer to pooling a batch is one `(tokens, dim)` matrix. Its texts are concatenated and sorted by
length, so that texts of equal length are neighbours and form a `Run`: a block that can be viewed as
`(texts, length, dim)` without copying.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .prefetch import to_device
from .text import TokenizedTexts


class Run(NamedTuple):
    """Neighbouring texts of equal length: rows `start` to `start + texts * length` of the token matrix."""

    start: int
    texts: int
    length: int

    @property
    def rows(self) -> slice:
        """The rows of the token matrix that belong to the run."""
        return slice(self.start, self.start + self.texts * self.length)


@dataclass(frozen=True)
class PackedBatch:
    """Texts packed into one matrix of tokens.

    Attributes:
        input_ids: int64, (tokens,).
        positions: int64, (tokens,): position of the token in its text, from 0.
        text_index: int64, (tokens,): index of the text that the token belongs to.
        lengths: int64, (texts,), in packed order.
        offsets: int32, (texts + 1,): start of each text, and the end of the last.
        runs: texts of equal length, in packed order.
        restore: int64, (texts,): `pooled[restore]` puts rows of packed order back into the caller's order.
        prompt_length: leading tokens of every text that belong to a prompt.
        token_types: int64, (tokens,): the text of a pair that the token belongs to, 0 or 1; None if all are 0.
    """

    input_ids: Tensor
    positions: Tensor
    text_index: Tensor
    lengths: Tensor
    offsets: Tensor
    runs: tuple[Run, ...]
    restore: Tensor
    prompt_length: int = 0
    token_types: Tensor | None = None

    @property
    def texts(self) -> int:
        """Number of texts."""
        return self.lengths.shape[0]

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.input_ids.shape[0]

    @property
    def max_length(self) -> int:
        """Tokens of the longest text."""
        return max(run.length for run in self.runs)

    def to(self, device: torch.device | str) -> PackedBatch:
        """Return the batch with its tensors on `device`."""
        if self.input_ids.device == torch.device(device):
            return self
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        there: dict[str, Any] = dict(zip(tensors, to_device(list(tensors.values()), device), strict=True))
        return replace(self, **there)

    def cut(self, max_tokens: int) -> list[PackedBatch]:
        """Split the texts, in packed order, into batches of at most `max_tokens` tokens; a longer text is alone."""
        starts = self._starts()
        return self._parts(_cuts(starts, max_tokens), starts)

    def cut_texts(self, most: int) -> list[PackedBatch]:
        """Split the texts, in packed order, into batches of at most `most` texts."""
        return self._parts([*range(0, self.texts, most), self.texts], self._starts())

    def _starts(self) -> NDArray[np.int64]:
        """Return the first token of each text, and the end of the last, on the host: (texts + 1,)."""
        return _ends(np.concatenate([np.full(run.texts, run.length) for run in self.runs]))

    def _parts(self, cuts: Sequence[int], starts: NDArray[np.int64]) -> list[PackedBatch]:
        lengths = np.diff(starts)
        return [self._part(*ends, lengths, starts) for ends in pairwise(cuts)]

    def _part(self, first: int, end: int, lengths: NDArray[np.int64], starts: NDArray[np.int64]) -> PackedBatch:
        tokens = slice(int(starts[first]), int(starts[end]))
        return PackedBatch(
            input_ids=self.input_ids[tokens],
            positions=self.positions[tokens],
            text_index=self.text_index[tokens] - first,
            lengths=self.lengths[first:end],
            offsets=self.offsets[first : end + 1] - tokens.start,
            runs=tuple(runs_of(lengths[first:end])),
            restore=torch.arange(end - first, device=self.restore.device),
            prompt_length=self.prompt_length,
            token_types=None if self.token_types is None else self.token_types[tokens],
        )


@dataclass(frozen=True, kw_only=True)
class PaddedBatch(PackedBatch):
    """Texts of one padded length, for replay. Padding counts as tokens here: all lengths are the padded one.

    Attributes:
        mask: bool, (texts, length): True for tokens that are not padding.
    """

    mask: Tensor

    def cut_padded(self, most: int, *, tokens: int | None, trimmed: bool) -> list[PaddedBatch]:
        """Split the texts into mini-batches, as the reference's losses with a gradient cache do.

        Args:
            most: number of texts in each but the last.
            tokens: number of tokens in each, without padding, in place of `most`; a longer text is alone.
            trimmed: cut off the padding that all texts of a mini-batch have.
        """
        lengths = self.mask.sum(dim=1).numpy()
        cuts = list(range(0, self.texts, most)) if tokens is None else _cuts(_ends(lengths), tokens)[:-1]
        ids = self.input_ids.view(self.mask.shape)
        parts = []
        for first, end in pairwise([*cuts, self.texts]):
            width = slice(max(1, int(lengths[first:end].max())) if trimmed else None)
            parts.append(_padded(ids[first:end, width], self.mask[first:end, width], self.prompt_length))
        return parts


def pack(texts: TokenizedTexts, rows: NDArray[np.int64] | None = None, *, prompt_length: int = 0) -> PackedBatch:
    """Pack the texts numbered `rows` (all by default), shortest first.

    `restore` of the result gives back the order of `rows`.
    """
    rows = np.arange(len(texts.lengths)) if rows is None else rows
    if len(rows) == 1:
        return _one(texts, int(rows[0]), prompt_length)
    lengths = texts.lengths_of(rows)
    order = np.argsort(lengths, kind="stable")
    sorted_rows, lengths = rows[order], lengths[order]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    text_index = np.repeat(np.arange(len(rows)), lengths)
    positions = np.arange(offsets[-1]) - offsets[text_index]
    source = texts.offsets[sorted_rows][text_index] + positions
    restore = np.empty(len(rows), np.int64)
    restore[order] = np.arange(len(rows))
    types = None if texts.types is None else texts.types[source].astype(np.int64)
    return PackedBatch(
        input_ids=torch.from_numpy(texts.ids[source].astype(np.int64)),
        positions=torch.from_numpy(positions),
        text_index=torch.from_numpy(text_index),
        lengths=torch.from_numpy(lengths),
        offsets=torch.from_numpy(offsets.astype(np.int32)),
        runs=tuple(runs_of(lengths)),
        restore=torch.from_numpy(restore),
        prompt_length=prompt_length,
        token_types=torch.from_numpy(types) if types is not None and types.any() else None,
    )


def _one(texts: TokenizedTexts, row: int, prompt_length: int) -> PackedBatch:
    """Pack one text, in a fraction of the time."""
    length = int(texts.lengths_of(np.array([row]))[0])
    start = int(texts.offsets[row]) if row else 0
    types = None if texts.types is None else texts.types[start : start + length].astype(np.int64)
    return PackedBatch(
        input_ids=torch.from_numpy(texts.ids[start : start + length].astype(np.int64)),
        positions=torch.from_numpy(np.arange(length, dtype=np.int64)),
        text_index=torch.from_numpy(np.zeros(length, np.int64)),
        lengths=torch.from_numpy(np.array([length], np.int64)),
        offsets=torch.from_numpy(np.array([0, length], np.int32)),
        runs=(Run(0, 1, length),),
        restore=torch.from_numpy(np.zeros(1, np.int64)),
        prompt_length=prompt_length,
        token_types=torch.from_numpy(types) if types is not None and types.any() else None,
    )


def pack_padded(texts: Sequence[NDArray[np.int32]], *, padding: int) -> PaddedBatch:
    """Pad texts to the longest with the token `padding`, in the order given, for `training/replay.py`.

    Args:
        texts: ids of each text.
        padding: id of the padding token.
    """
    width = max(map(len, texts))
    count = len(texts)
    ids = np.full((count, width), padding, np.int64)
    mask = np.zeros((count, width), np.bool_)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = True
    return _padded(torch.from_numpy(ids), torch.from_numpy(mask))


def _padded(ids: Tensor, mask: Tensor, prompt_length: int = 0) -> PaddedBatch:
    """Make the batch of padded ids, (texts, length)."""
    count, width = ids.shape
    return PaddedBatch(
        input_ids=ids.reshape(-1),
        positions=torch.arange(width).repeat(count),
        text_index=torch.arange(count).repeat_interleave(width),
        lengths=torch.full((count,), width),
        offsets=torch.arange(count + 1, dtype=torch.int32) * width,
        runs=(Run(0, count, width),),
        restore=torch.arange(count),
        prompt_length=prompt_length,
        mask=mask,
    )


def token_budget_batches(
    lengths: NDArray[np.int64], *, max_tokens: int, max_texts: int | None = None
) -> list[NDArray[np.int64]]:
    """Split texts into batches of at most `max_tokens` tokens (a longer text is alone in one) and `max_texts` texts.

    Texts are taken longest first, so that the batch that needs the most memory comes first and the texts of a batch
    have nearly the same length. Returns row indices, each row once.
    """
    if len(lengths) == 1:
        return [np.zeros(1, np.int64)]
    order = np.argsort(-lengths, kind="stable")
    batches: list[NDArray[np.int64]] = []
    start = tokens = 0
    for end, length in enumerate(lengths[order].tolist()):
        full = tokens + length > max_tokens or (max_texts is not None and end - start >= max_texts)
        if full and end > start:
            batches.append(order[start:end])
            start, tokens = end, 0
        tokens += length
    if len(order) > start:
        batches.append(order[start:])
    return batches


def pad(hidden: Tensor, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """Scatter packed rows into a padded tensor.

    Args:
        hidden: (tokens,) or (tokens, dim).
        batch: the batch of `hidden`.

    Returns:
        The padded values, (texts, longest[, dim]) with zeros as padding, and the mask, bool, (texts, longest).
    """
    padded = hidden.new_zeros(batch.texts, batch.max_length, *hidden.shape[1:])
    padded[batch.text_index, batch.positions] = hidden
    mask = torch.arange(batch.max_length, device=hidden.device) < batch.lengths[:, None]  # (texts, longest)
    return padded, mask


def unpad(padded: Tensor, batch: PackedBatch) -> Tensor:
    """Undo `pad`: (texts, longest, dim) to (tokens, dim)."""
    return padded[batch.text_index, batch.positions]


def _ends(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first token of each text, and the end of the last: (texts + 1,)."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def _cuts(starts: NDArray[np.int64], most: int) -> list[int]:
    """Return the first text of each part of at most `most` tokens (a longer text is alone), and the end of the last."""
    cuts = [0]
    while cuts[-1] < len(starts) - 1:
        last = int(np.searchsorted(starts, starts[cuts[-1]] + most, side="right")) - 1
        cuts.append(max(last, cuts[-1] + 1))
    return cuts


def runs_of(lengths: NDArray[np.int64]) -> Iterator[Run]:
    """Yield the runs of texts that are sorted by their lengths, (texts,)."""
    start = 0
    for length, texts in zip(*np.unique(lengths, return_counts=True), strict=True):
        yield Run(start, int(texts), int(length))
        start += int(texts * length)
