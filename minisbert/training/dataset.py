"""Tokenized rows, and the batches of each optimizer step."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.roles import TrainingRows
from ..data.sampling import Batch, EpochSampler
from ..distributed import rank, world_size
from ..errors import ConfigError
from ..packing import PackedBatch, pack
from ..prefetch import to_device
from ..text import TEXTS_AT_ONCE, TextTokenizer

_SHOWN_ROWS = 16  # of a batch, in a message


class TrainingBatch(NamedTuple):
    """Rows of one data set, ready for the model.

    Attributes:
        dataset: index of the data set, and of its loss.
        texts: every text of the rows, in one packed batch (in a replay, in several padded ones).
        columns: number of text columns in each of these.
        labels: float32, (rows,), (rows, size) or (rows, columns, size), or None.
        tokens: number of tokens, without padding.
        guide_texts: the texts in the tokens of the loss's guide, if it has other ones.
        divisor: its loss is divided by this, so that the losses of a step add up to their mean, over all processes.
        shared: True if the other processes have rows of the same batch.
    """

    dataset: int
    texts: tuple[PackedBatch, ...]
    columns: tuple[int, ...]
    labels: Tensor | None
    tokens: int
    guide_texts: tuple[PackedBatch, ...] = ()
    divisor: float = 1
    shared: bool = False

    def to(self, device: torch.device) -> TrainingBatch:
        """Return the same batch with its tensors on `device`."""
        labels = None if self.labels is None else to_device([self.labels], device)[0]
        texts, guide_texts = (tuple(one.to(device) for one in some) for some in (self.texts, self.guide_texts))
        return self._replace(texts=texts, labels=labels, guide_texts=guide_texts)


class TrainingStep(NamedTuple):
    """The batches that this process computes for an optimizer step, and the tokens of those of all processes."""

    batches: list[TrainingBatch]
    tokens: int


class Place(NamedTuple):
    """A place between two steps of a run, which says the same in any number of processes.

    Attributes:
        epoch: number of the epoch, from 0.
        batches: batches of the epoch that are done.
        size: rows of a full batch.
        skipped: rows of the epoch before these batches, which were done in batches of another size.
    """

    epoch: int
    batches: int
    size: int
    skipped: int = 0

    @property
    def starts_epoch(self) -> bool:
        """True between two epochs."""
        return self.batches == self.skipped == 0


class TrainingDataset:
    """Rows of texts, tokenized once.

    Args:
        rows: the rows.
        tokenizer: of the model.
        prompts: put before the texts of these columns.
        leaves_out_prompts: True if the tokens of prompts are left out of pooling.
        apart: pack each column by itself.
        labels_equal_texts: label rows without labels 1 if their texts have equal tokens, otherwise 0.

    Attributes:
        column_count: number of text columns.
        prompt_lengths: leading tokens of each column that are left out of pooling.
        guide: the same rows in the tokens of the loss's guide, or None.
    """

    guide: TrainingDataset | None = None

    def __init__(
        self,
        rows: TrainingRows,
        tokenizer: TextTokenizer,
        *,
        prompts: Mapping[str, str] | None = None,
        leaves_out_prompts: bool = False,
        apart: bool = False,
        labels_equal_texts: bool = False,
    ) -> None:
        self.apart = apart
        prompts = prompts or {}
        self.column_count = len(rows.texts)
        self.prompt_lengths = tuple(
            tokenizer.prompt_length(prompts[column]) if column in prompts and leaves_out_prompts else 0
            for column in rows.texts
        )
        self._rows = len(rows)
        self._counted = len(next(iter(rows.texts.values())))  # all of them, or the first ones of a token store
        self._plain = {column: rows.texts[name] for column, name in enumerate(rows.texts) if name in prompts}
        self._tokenizer = tokenizer
        self._tokens = rows.tokens(tokenizer, prompts)
        self._strides = (self.column_count, 1) if rows.row_by_row else (1, self._rows)
        self._labels = None if rows.labels is None else torch.as_tensor(rows.labels, dtype=torch.float32)
        self._labels_equal_texts = labels_equal_texts and self._labels is None

    @property
    def truncated(self) -> int:
        """Number of texts that were cut to the model's maximum length."""
        return self._tokens.truncated

    @property
    def texts(self) -> int:
        """Number of texts in all columns."""
        return self._rows * self.column_count

    @property
    def token_counts(self) -> NDArray[np.int64]:
        """Tokens of each text after the cut, in a token store of the first rows: (columns, rows)."""
        rows = np.arange(self._counted)
        return np.stack([self._tokens.lengths_of(self._texts(rows, column)) for column in range(self.column_count)])

    def plain_token_counts(self) -> NDArray[np.int64]:
        """Count the tokens of each text as `token_counts` does, without its prompt: (columns, rows)."""
        counts = self.token_counts.copy()
        for column, texts in self._plain.items():
            blocks = (texts[start : start + TEXTS_AT_ONCE] for start in range(0, len(texts), TEXTS_AT_ONCE))
            plain = np.concatenate([self._tokenizer.count(list(block)) for block in blocks])
            counts[column] = np.minimum(plain, self._tokenizer.max_length)
        return counts

    def batch(self, rows: NDArray[np.int64], *, dataset: int = 0) -> TrainingBatch:
        """Make the batch of `rows`; `dataset` is the index of this data set."""
        texts, columns = self.pack(rows)
        labels = None if self._labels is None else self._labels[torch.from_numpy(rows)]
        labels = self._equal_texts(rows) if self._labels_equal_texts else labels
        guide_texts = self.guide.pack(rows)[0] if self.guide is not None else ()
        return TrainingBatch(dataset, texts, columns, labels, self.tokens_of(rows), guide_texts)

    def tokens_of(self, rows: NDArray[np.int64]) -> int:
        """Count the tokens of `rows`, in all columns."""
        numbers = np.concatenate([self._texts(rows, column) for column in range(self.column_count)])
        return int(self._tokens.lengths_of(numbers).sum())

    def pack(self, rows: NDArray[np.int64]) -> tuple[tuple[PackedBatch, ...], tuple[int, ...]]:
        """Pack all columns of `rows` into one batch, whose `restore` leads to the rows of each column in turn.

        Neighbouring columns with prompts of other lengths to leave out are in a batch of their own.
        """
        key = int if self.apart else self.prompt_lengths.__getitem__
        groups = [list(columns) for _, columns in groupby(range(self.column_count), key)]
        packed = [
            pack(
                self._tokens,
                np.concatenate([self._texts(rows, column) for column in columns]),
                prompt_length=self.prompt_lengths[columns[0]],
            )
            for columns in groups
        ]
        return tuple(packed), tuple(map(len, groups))

    def columns(self, rows: NDArray[np.int64]) -> list[list[NDArray[np.int32]]]:
        """Return the token ids of each text of `rows`, column by column."""
        ids, offsets = self._tokens.ids, self._tokens.offsets
        texts = [self._texts(rows, column) for column in range(self.column_count)]
        return [[ids[offsets[text] : offsets[text + 1]] for text in column] for column in texts]

    def fingerprint(self) -> str:
        """Digest of token ids, their division into texts and columns, and labels."""
        digest = hashlib.sha256(f"{self.column_count} columns, {self._rows} rows".encode())
        stored: str | None = getattr(self._tokens, "digest", None)  # of a token store, with its labels
        if stored is not None:
            digest.update(stored.encode())
            return digest.hexdigest()
        digest.update(self._tokens.lengths.tobytes())
        digest.update(self._tokens.ids.tobytes())
        labels = self._equal_texts(np.arange(self._rows)) if self._labels_equal_texts else self._labels
        if labels is not None:
            digest.update(labels.contiguous().numpy().data)  # which may be larger than memory
        return digest.hexdigest()

    def _texts(self, rows: NDArray[np.int64], column: int) -> NDArray[np.int64]:
        """Return the numbers of the texts of a column."""
        row, between = self._strides
        return rows * row + column * between

    def _equal_texts(self, rows: NDArray[np.int64]) -> Tensor:
        """Return 1 for rows whose texts have equal tokens, otherwise 0: float32, (rows,)."""
        same = [
            all(np.array_equal(first, text) for text in others)
            for first, *others in zip(*self.columns(rows), strict=True)
        ]
        return torch.tensor(same, dtype=torch.float32)


class TrainingBatches:
    """The batches of each optimizer step of a run, epoch after epoch.

    Several processes take turns: each computes every so-many-th batch, and at the end of an epoch some have none. Or
    they share every batch, each with its part of the rows; one with fewer rows than processes is left to the first.

    Args:
        datasets: the rows.
        names: a name of each data set, for messages.
        sampler: decides which rows make a batch, and in which order.
        accumulation: batches of one optimizer step, for each process where these take turns.
        shared: the processes share every batch.
        on_epoch_start: called before the first batch of each epoch is made.

    Attributes:
        steps_per_epoch: optimizer steps of an epoch.
    """

    def __init__(
        self,
        datasets: Sequence[TrainingDataset],
        names: Sequence[str],
        sampler: EpochSampler,
        *,
        accumulation: int,
        shared: bool = False,
        on_epoch_start: Callable[[], None],
    ) -> None:
        self.datasets, self._names, self._sampler = datasets, names, sampler
        self._shared, self._on_epoch_start = shared, on_epoch_start
        self._rank, self._processes = rank(), world_size()
        self._batches_per_step = accumulation * (1 if shared else self._processes)
        self.steps_per_epoch = math.ceil(len(sampler) / self._batches_per_step)
        self._first, self._start = 0, Place(0, 0, sampler.batch_size)

    def steps(self, start: int, end: int) -> Generator[TrainingStep]:
        """Yield each optimizer step after the first `start`, up to step `end`."""
        step = start
        while step < end:
            if self.place(step).starts_epoch:
                self._on_epoch_start()
            for batches in islice(self._rest_of_epoch(step), end - step):
                step += 1
                tokens = sum(self.datasets[dataset].tokens_of(rows) for dataset, rows in batches)
                yield TrainingStep(list(self._own(batches)), tokens)

    def _own(self, batches: Sequence[Batch]) -> Iterator[TrainingBatch]:
        """Make what this process computes of the batches of a step."""
        for number, (dataset, rows) in enumerate(batches):
            shared = self._shared and self._processes <= len(rows)
            turn = 0 if self._shared else number % self._processes
            if shared or turn == self._rank:
                own = np.array_split(rows, self._processes)[self._rank] if shared else rows
                divisor = len(batches) * len(rows) / len(own)
                yield self.datasets[dataset].batch(own, dataset=dataset)._replace(divisor=divisor, shared=shared)

    def place(self, step: int) -> Place:
        """Return the place after step `step`."""
        steps, left = step - self._first, self._left(self._start)
        if steps < left:
            return self._start._replace(batches=self._start.batches + steps * self._batches_per_step)
        epochs, steps = divmod(steps - left, self.steps_per_epoch)
        return Place(self._start.epoch + 1 + epochs, steps * self._batches_per_step, self._start.size)

    def epoch_after(self, step: int) -> float:
        """Return how many epochs are done after step `step`."""
        place = self.place(step)
        if not self._first:
            return step / self.steps_per_epoch
        return place.epoch + min((place.batches + place.skipped / place.size) / len(self._sampler), 1)

    @property
    def has_moved(self) -> bool:
        """True in a run that goes on at a place where one with its batches and processes would not be."""
        return self._first > 0

    def last_step(self, epochs: int) -> int:
        """Return the number of the last step of a run over `epochs` epochs."""
        return self._first + self._left(self._start) + (epochs - self._start.epoch - 1) * self.steps_per_epoch

    def go_on(self, step: int, place: Place) -> bool:
        """Let the steps after step `step` begin at a place; return False if they do so already.

        Raises:
            ConfigError: batches had another size there, and rows cannot be cut into other ones within an epoch.
        """
        size = self._start.size
        if place.size != size:
            if not (place.starts_epoch or self._sampler.orders_rows):
                raise ConfigError(
                    f"got batches of {size} rows in the middle of an epoch of batches of {place.size}, which cannot be "
                    f"divided anew with this sampler; expected the same size: choose batch_size so that the processes "
                    f"have {place.size} rows together, or start as many as before"
                )
            place = Place(place.epoch, 0, size, place.skipped + place.batches * place.size)
        if place == self.place(step):
            return False
        self._first, self._start = step, place
        return True

    def _left(self, place: Place) -> int:
        """Number of steps of an epoch after a place."""
        batches = self._sampler.count_after(place.skipped) if place.skipped else len(self._sampler)
        return math.ceil((batches - place.batches) / self._batches_per_step)

    def describe(self, step: int) -> str:
        """Name the rows and data sets of optimizer step `step`, counted from 1, for a message."""
        shown = []
        for dataset, rows in next(self._rest_of_epoch(step - 1)):
            first, more = ", ".join(map(str, rows[:_SHOWN_ROWS].tolist())), len(rows) - _SHOWN_ROWS
            shown.append(f"rows {first}{f' and {more} more' if more > 0 else ''} of {self._names[dataset]}")
        return "; ".join(shown)

    def _rest_of_epoch(self, step: int) -> Iterator[list[Batch]]:
        """Yield the rows of each optimizer step that follows step `step` in its epoch."""
        place = self.place(step)
        epoch, sampler = place.epoch, self._sampler
        batches = sampler.after(epoch, place.skipped) if place.skipped else sampler.epoch(epoch)
        batches = islice(batches, place.batches, None)
        return iter(lambda: list(islice(batches, self._batches_per_step)), [])
