"""CUDA graphs over packed batches: hundreds of launches become one, which is what small batches wait for.

A graph has fixed sizes and fixed addresses. So batches are filled up to a `Bucket` of sizes, of which there are few,
and copied to where the graph of the bucket reads them. The work always runs on the filled batch, captured or not, so
both give the same bits. Tokens that fill a batch up belong to no text; the kernels skip them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar
from weakref import WeakMethod

import torch
from torch import Tensor, nn

from .packing import PackedBatch, Run

T = TypeVar("T")
Recorder: TypeAlias = Callable[[Callable[[], T]], Callable[[], T]]

_LEAST_TOKENS = 64
_LEAST_LONGEST = 16
_MOST_BUCKETS = 32  # that are kept; the oldest is dropped first
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
        """The smallest bucket that holds a batch: eight sizes per doubling, so at most an eighth is filler."""
        tokens = _round_up(batch.tokens, least=_LEAST_TOKENS, parts=8)
        texts = _round_up(batch.texts, least=1, parts=4) if fill_texts else batch.texts
        longest = _round_up(batch.max_length, least=_LEAST_LONGEST, parts=1)
        return cls(tokens, texts, longest, batch.token_types is not None)


class _Slot:
    """The memory of a bucket's batch."""

    def __init__(self, bucket: Bucket, device: torch.device) -> None:
        def zeros(size: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(size, dtype=dtype, device=device)

        with torch.inference_mode(False):  # tensors made in inference mode cannot be written to outside
            self.batch = PackedBatch(
                input_ids=zeros(bucket.tokens),
                positions=zeros(bucket.tokens),
                text_index=zeros(bucket.tokens),
                lengths=zeros(bucket.texts),
                offsets=zeros(bucket.texts + 1, torch.int32),
                runs=(Run(0, bucket.texts, bucket.longest),),
                restore=zeros(bucket.texts),
                token_types=zeros(bucket.tokens) if bucket.types else None,
            )
        self.labels: Tensor | None = None

    def load(self, batch: PackedBatch, labels: Tensor | None) -> None:
        """Copy a batch in. The tokens after its last one stay those of an earlier batch and belong to no text."""
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
    """Captures work on a CUDA device as graphs. Graphs of one object share memory: never run two at the same time.

    Args:
        device: where the work runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._memory: Any = None

    def __call__(self, work: Callable[[], T]) -> Callable[[], T]:
        """Capture what `work` launches, without running it. Each call of the result runs it, into the same tensors."""
        with torch.cuda.device(self._device):
            self._memory = self._memory or torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the device during the capture.
            with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
                result = work()

        def replay() -> T:
            with torch.cuda.device(self._device):
                graph.replay()
            return result

        return replay


class Recorded(Generic[T]):
    """Work that is captured on its second call, and replayed from then on.

    The first call runs it as it is: kernels are compiled and libraries initialized then.

    Args:
        work: launches the same every time and never waits for the device.
        record: turns work into its recording.
    """

    def __init__(self, work: Callable[[], T], record: Recorder[T]) -> None:
        self._work, self._record = work, record
        self._replay: Callable[[], T] | None = None
        self._ran = False

    def __call__(self) -> T:
        """Run the work; the result is valid until the next call."""
        if not self._ran:
            self._ran = True
            return self._work()
        if self._replay is None:
            self._replay = self._record(self._work)
        return self._replay()


class Graphs(Generic[T]):
    """Work on batches, `Recorded` for each bucket.

    Args:
        work: maps a filled batch, whose added texts have no tokens, and labels to anything made of tensors.
        device: where batches are.
        fill_texts: round the number of texts up too.
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
        """Run the work; the result is valid until the next call."""
        bucket = Bucket.of(batch, fill_texts=self._fill_texts)
        if bucket not in self._slots:
            if len(self._slots) >= _MOST_BUCKETS:
                del self._slots[next(iter(self._slots))]
            made = _Slot(bucket, self._device)
            self._slots[bucket] = made, Recorded(lambda: self._work(made.batch, made.labels), self._record)
        slot, work = self._slots[bucket]
        slot.load(batch, labels)
        return work()


class GpuEncoder:
    """The forward pass of an encoder in inference, as CUDA graphs.

    A graph reads weights at their addresses, so it follows any change in place. All graphs are dropped when something
    they captured is another one: a module, or address, dtype or layout of a weight.
    """

    def __init__(self) -> None:
        self._captured: list[object] = []
        self._graphs: Graphs[Tensor] | None = None
        self._lock = Lock()

    def __call__(
        self, embed: Callable[[PackedBatch], Tensor], modules: Sequence[nn.Module], batch: PackedBatch
    ) -> Tensor:
        """Embed tokens: (tokens, dim).

        Args:
            embed: the forward pass, a method that is held weakly.
            modules: all parts of its owner, whose weights are on one device.
            batch: on the device of the weights.
        """
        captured = _captured(modules)
        with self._lock:
            if self._graphs is None or captured != self._captured:
                device = batch.input_ids.device
                method = WeakMethod(embed)

                def work(filled: PackedBatch, _: Tensor | None) -> Tensor:
                    embed = method()
                    assert embed is not None  # noqa: S101  # its owner is running it
                    hidden: Tensor = embed(filled)
                    return hidden

                self._graphs = Graphs(work, device, fill_texts=True, record=CudaGraphs(device))
                self._captured = captured
            return self._graphs(batch)[: batch.tokens].clone()


def _captured(modules: Sequence[nn.Module]) -> list[object]:
    """Everything that a graph over some modules depends on besides the values of weights."""
    found: list[object] = []
    for module in modules:
        found += module, getattr(module, "eps", None), getattr(module, "activation", None)
        for weight in module._parameters.values():
            if weight is not None:
                found.append((weight.data_ptr(), weight.dtype, weight.shape, weight.stride()))
    return found


def _round_up(size: int, *, least: int, parts: int) -> int:
    """The next of `parts` sizes for every doubling."""
    step = max(least, (1 << max(size - 1, 0).bit_length()) // (2 * parts))
    return max(least, -(-size // step) * step)
