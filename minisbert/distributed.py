"""Several processes of one run: which one this is, and what they exchange.

A launcher such as torchrun starts them. Every process calls the functions below that exchange something, in the same
order; without torch.distributed, or in a block of `alone`, this process is all there is and nothing is exchanged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from .errors import ConfigError, MinisbertError, PoolError, first_line

Value = TypeVar("Value")

_LAUNCH = "start it with torchrun, or unset WORLD_SIZE"
TIMEOUT = timedelta(minutes=30)  # for which a process waits for the others
_BUCKET = 2**24  # numbers that are summed at once, 64 MB in float32
_groups = count()  # those that were joined
_alone: ContextVar[bool] = ContextVar("alone", default=False)
_sharing: ContextVar[bool] = ContextVar("sharing", default=False)


def world_size() -> int:
    """Number of processes of the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() and not _alone.get() else 1


def rank() -> int:
    """Number of this process, from 0; process 0 is the one that writes and prints."""
    return dist.get_rank() if world_size() > 1 else 0


@contextmanager
def alone() -> Iterator[None]:
    """Compute a block of code as the only process of a run; what it gathers is gathered from this process."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


@contextmanager
def sharing() -> Iterator[None]:
    """Embed each text in one of the processes of a run, for a block of code that all of them run with the same texts.

    In it every `encode` for sentence embeddings embeds a part of its texts and returns the embeddings of all.
    Evaluators in it, as those of a `Trainer`, measure the same in every process, in less time.
    """
    token = _sharing.set(True)
    try:
        yield
    finally:
        _sharing.reset(token)


def shares(texts: int) -> bool:
    """Return True in a block of `sharing`, if there are texts for every process."""
    return _sharing.get() and 1 < world_size() <= texts


def launched() -> bool:
    """Return True if a launcher has started this process as one of several.

    Raises:
        ConfigError: the environment says so, but not all that the processes have to know of each other.
    """
    size = _from_environment("WORLD_SIZE", least=1) if "WORLD_SIZE" in os.environ else 1
    if not dist.is_available() or size < 2 or "RANK" not in os.environ:
        return False
    if _from_environment("RANK", least=0) >= size:
        raise ConfigError(f"got RANK={os.environ['RANK']} and WORLD_SIZE={size}; expected a rank below it: {_LAUNCH}")
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
        raise ConfigError(f"got WORLD_SIZE={size} and no {missing[0]} in the environment; expected both: {_LAUNCH}")
    _from_environment("MASTER_PORT", least=0)
    return True


def _from_environment(name: str, *, least: int) -> int:
    value = os.environ[name]
    if not value.isdecimal() or int(value) < least:
        raise ConfigError(
            f"got {name}={value!r} in the environment; expected a whole number from {least} on: {_LAUNCH}"
        )
    return int(value)


def local_device(device: torch.device) -> torch.device:
    """Return a device, and for any GPU that of this process, if a launcher has started it."""
    if device.type != "cuda" or device.index is not None or not launched():
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


@cache
def _meeting() -> tuple[Any, int, int]:
    """Return the store in which the processes of the launcher meet, the number of this one and how many there are."""
    from torch.distributed.rendezvous import rendezvous  # which only a torch that has torch.distributed can import

    try:
        return cast("tuple[Any, int, int]", next(rendezvous("env://", timeout=TIMEOUT)))
    except (dist.DistError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise PoolError(
            f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']} has not met the others at {place} "
            f"({first_line(error)}); expected all of them there: {_LAUNCH}"
        ) from None


@contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Join the processes that a launcher has started, for a block of code; without a launcher nothing happens.

    A process group that exists already is used, and left as it is.

    Args:
        device: of the model; GPUs exchange their tensors by NCCL, everything else goes through Gloo.
    """
    if not launched() or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, number, size = _meeting()
    # A second group, or one that a launcher starts again, would find the addresses of the first in the same store.
    prefix = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')} {next(_groups)}"
    store = dist.PrefixStore(prefix, store)  # type: ignore[attr-defined]
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=size, timeout=TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


# ---- objects and weights --------------------------------------------------------------------------------------------


def gather_objects(value: Value) -> list[Value]:
    """Return the values of all processes, which must be picklable, in their order."""
    values: list[Any] = [value] * world_size()
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return values


def broadcast_object(value: Value) -> Value:
    """Return the value of process 0, which must be picklable."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


def by_first(work: Callable[[], Value]) -> Value:
    """Do something in process 0 alone; every process returns its result, which must be picklable.

    Raises:
        MinisbertError: it failed, in every process.
    """
    if world_size() == 1:
        return work()
    result: Value | None = None
    error: MinisbertError | None = None
    if rank() == 0:
        try:
            result = work()
        except MinisbertError as raised:
            error = raised
    result, failure = broadcast_object((result, error))
    if error is not None:
        raise error
    if failure is not None:
        failure.told = True
        raise failure
    return cast(Value, result)


@torch.no_grad()
def broadcast_tensors(tensors: Sequence[Tensor]) -> None:
    """Overwrite tensors by those of process 0, which have the same shapes and dtypes."""
    for tensor in tensors if world_size() > 1 else ():
        sent = tensor.contiguous()
        dist.broadcast(sent, src=0)
        tensor.copy_(sent)


# ---- rows -----------------------------------------------------------------------------------------------------------


def gather_rows(tensor: Tensor, *, own_first: bool = False) -> Tensor:
    """Return the rows of all processes, in the order of these: (rows, ...) to (all rows, ...).

    Numbers of rows may differ, other sizes may not. Backward sums what the losses of all processes ask of a row, so
    that the sum of these losses is what gets differentiated.

    Args:
        tensor: the rows of this process.
        own_first: begin with these; those of the next process follow, and so on around.
    """
    if world_size() == 1:
        return tensor
    counts = row_counts(tensor)
    rows = cast(Tensor, _GatheredRows.apply(tensor, counts))  # type: ignore[no-untyped-call]
    return rows.roll(-sum(counts[: rank()]), 0) if own_first else rows


def row_counts(tensor: Tensor) -> list[int]:
    """Return the rows that each process has."""
    counts = torch.zeros(world_size(), dtype=torch.int64, device=tensor.device)
    counts[rank()] = len(tensor)
    if len(counts) > 1:
        dist.all_reduce(counts)
    return counts.tolist()


class _GatheredRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, counts: Sequence[int]) -> Tensor:
        ctx.own = sum(counts[: rank()]), len(tensor)
        sent = tensor.new_zeros(max(counts), *tensor.shape[1:])
        sent[: len(tensor)] = tensor.detach()
        received = [torch.empty_like(sent) for _ in counts]
        dist.all_gather(received, sent)
        return torch.cat([rows[:count] for rows, count in zip(received, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.narrow(0, *ctx.own), None


# ---- sums -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def sum_in_buckets(tensors: Sequence[Tensor]) -> None:
    """Overwrite tensors by their sums over all processes; they travel together, in a few large buckets."""
    if world_size() == 1:
        return
    sent = []
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        sent.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
    for bucket, flat, work in sent:
        work.wait()
        parts = torch.split(flat, [tensor.numel() for tensor in bucket])
        for tensor, part in zip(bucket, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Divide tensors into buckets of one dtype, which a tensor may overfill."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        bucket: list[Tensor] = []
        size = 0
        for tensor in tensors:
            if tensor.dtype == dtype:
                bucket.append(tensor)
                size += tensor.numel()
                if size >= _BUCKET:
                    yield bucket
                    bucket, size = [], 0
        if bucket:
            yield bucket


@torch.no_grad()
def sum_sparse(tensor: Tensor) -> Tensor:
    """Return the sum of sparse (rows, dim) tensors over all processes, coalesced; only the rows they have travel."""
    tensor = tensor.coalesce()
    if world_size() == 1:
        return tensor
    rows, values = gather_rows(tensor.indices()[0]), gather_rows(tensor.values())
    return torch.sparse_coo_tensor(rows[None], values, tensor.shape, check_invariants=False).coalesce()


def largest(tensor: Tensor) -> Tensor:
    """Return the largest of each number over all processes."""
    if world_size() > 1:
        sent = tensor.clone() if tensor.device.type in dist.get_backend_config() else tensor.cuda()
        dist.all_reduce(sent, op=dist.ReduceOp.MAX)
        return sent.to(tensor.device)
    return tensor
