"""Work on packed batches as CUDA graphs: hundreds of launches become one, which small batches wait for.

A graph is of fixed sizes and fixed places in memory. So batches are filled up to a `Bucket` of sizes, of which there
are few, and copied to where the bucket's graph reads them. What runs, runs on the filled batch whether it is recorded
or not, so that both give the same bits. Tokens that fill a batch up belong to no text; kernels leave them out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from ..packing import PackedBatch, Run

T = TypeVar("T")
Recorder: TypeAlias = Callable[[Callable[[], T]], Callable[[], T]]

_LEAST_TOKENS = 64
_LEAST_LONGEST = 16
_MOST_BUCKETS = 32  # that are kept; the one that was made first goes first
_PER_TOKEN = ("input_ids", "positions", "text_index", "token_types")
_PER_TEXT = ("lengths", "restore")


class Bucket(NamedTuple):
    """Sizes of a filled batch: its tokens and texts, a bound of their lengths, and whether tokens have types."""

    tokens: int
    texts: int
    longest: int
    types: bool

    @classmethod
    def of(cls, batch: PackedBatch, *, fill_texts: bool) -> Bucket:
        """The smallest that holds a batch: eight sizes for every doubling, so that at most an eighth is filled up."""
        tokens = _round_up(batch.tokens, least=_LEAST_TOKENS, parts=8)
        texts = _round_up(batch.texts, least=1, parts=4) if fill_texts else batch.texts
        longest = _round_up(batch.max_length, least=_LEAST_LONGEST, parts=1)
        return cls(tokens, texts, longest, batch.token_types is not None)


class _Slot:
    """Where a bucket's batch lies."""

    def __init__(self, bucket: Bucket, device: torch.device) -> None:
        def room(size: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(size, dtype=dtype, device=device)

        with torch.inference_mode(False):  # what is made there could not be written to elsewhere
            self.batch = PackedBatch(
                input_ids=room(bucket.tokens),
                positions=room(bucket.tokens),
                text_index=room(bucket.tokens),
                lengths=room(bucket.texts),
                offsets=room(bucket.texts + 1, torch.int32),
                runs=(Run(0, bucket.texts, bucket.longest),),
                restore=room(bucket.texts),
                token_types=room(bucket.tokens) if bucket.types else None,
            )
        self.labels: Tensor | None = None

    def load(self, batch: PackedBatch, labels: Tensor | None) -> None:
        """Copy a batch in. Its last tokens stay those of an earlier batch, of which nothing is made."""
        for names, size in ((_PER_TOKEN, batch.tokens), (_PER_TEXT, batch.texts)):
            for name in names:
                if (value := getattr(batch, name)) is not None:
                    getattr(self.batch, name)[:size].copy_(value, non_blocking=True)
        end = batch.texts + 1
        self.batch.offsets[:end].copy_(batch.offsets, non_blocking=True)
        if end < self.batch.offsets.shape[0]:
            self.batch.offsets[end:].fill_(batch.tokens)  # texts without tokens
        if labels is not None:
            if self.labels is None:
                with torch.inference_mode(False):
                    self.labels = torch.empty_like(labels)
            self.labels.copy_(labels, non_blocking=True)


class CudaGraphs:
    """Records work on a CUDA device. What one object records shares memory, so it must never run at the same time.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._memory: Any = None

    def __call__(self, work: Callable[[], T]) -> Callable[[], T]:
        """Record what work launches, without running it. Each call of the result runs it, into the same tensors."""
        with torch.cuda.device(self._device):
            self._memory = self._memory or torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            # Other threads may meanwhile use the device.
            with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
                result = work()

        def replay() -> T:
            with torch.cuda.device(self._device):
                graph.replay()
            return result

        return replay


class Recorded(Generic[T]):
    """Work that is recorded when it is done for the second time, and replayed from then on.

    The first time it runs as it is, which lets kernels be compiled and libraries set themselves up.

    Args:
        work: it must launch the same every time, and not wait for the device.
        record: turns work into its recording.
    """

    def __init__(self, work: Callable[[], T], record: Recorder[T]) -> None:
        self._work, self._record = work, record
        self._replay: Callable[[], T] | None = None
        self._ran = False

    def __call__(self) -> T:
        """Do the work; what it gives holds until the next call."""
        if not self._ran:
            self._ran = True
            return self._work()
        if self._replay is None:
            self._replay = self._record(self._work)
        return self._replay()


class Graphs(Generic[T]):
    """Work on batches, `Recorded` for each bucket.

    Args:
        work: from a filled batch, whose texts that were added have no tokens, and labels, to anything of tensors.
        device: where batches are.
        fill_texts: whether the number of texts is rounded up too.
        record: turns work into its recording.
    """

    def __init__(
        self,
        work: Callable[[PackedBatch, Tensor | None], T],
        device: torch.device,
        *,
        fill_texts: bool,
        record: Recorder[T],
    ) -> None:
        self._work, self._device, self._fill_texts, self._record = work, device, fill_texts, record
        self._slots: dict[Bucket, tuple[_Slot, Recorded[T]]] = {}

    def __call__(self, batch: PackedBatch, labels: Tensor | None = None) -> T:
        """Do the work; what it gives holds until the next call."""
        bucket = Bucket.of(batch, fill_texts=self._fill_texts)
        if bucket not in self._slots:
            if len(self._slots) >= _MOST_BUCKETS:
                del self._slots[next(iter(self._slots))]
            made = _Slot(bucket, self._device)
            self._slots[bucket] = made, Recorded(lambda: self._work(made.batch, made.labels), self._record)
        slot, work = self._slots[bucket]
        slot.load(batch, labels)
        return work()


def _round_up(size: int, *, least: int, parts: int) -> int:
    """The next of `parts` sizes for every doubling."""
    step = max(least, (1 << max(size - 1, 0).bit_length()) // (2 * parts))
    return max(least, -(-size // step) * step)
