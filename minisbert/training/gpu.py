"""Engines for GPUs: batches prepared ahead, embedded in pieces where memory is short, steps captured as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..cuda_graphs import CudaGraphs, Graphs, Recorded
from ..distributed import world_size
from ..errors import ConfigError, first_line, warn
from ..losses import Loss
from ..model import EmbeddingModel
from ..modules import Dense, Dropout, LayerNorm, Normalize, Pooling, Transformer
from ..modules.encoder import Encoder
from ..packing import PackedBatch
from ..prefetch import prefetch
from .dataset import TrainingBatch, TrainingStep
from .loop import Engine

_PREFETCHED = 4  # optimizer steps that are prepared while the device works
# Tokens that are embedded with all that backward needs: for MiniLM some 10 GB in half precision on a GPU, 30 GB in
# float32. Larger batches are embedded in pieces, and each piece again in backward.
MAX_TOKENS = 131_072


class PiecewiseEngine(Engine):
    """An engine for devices that compute by themselves and can run out of memory.

    Batches are prepared in a thread while the device works. When memory runs out, large batches are from then on
    embedded in pieces, twice each, which gives the same gradients.

    Attributes:
        max_tokens: tokens that are embedded at once, or None for any number.
    """

    max_tokens: int | None = None
    _warned = False

    def upcoming(self, steps: Generator[TrainingStep]) -> Generator[TrainingStep]:
        """Prepare the batches of the next steps in a thread."""
        return steps if self.model.device.type == "cpu" else prefetch(steps, depth=_PREFETCHED)

    def backward(self, batches: Sequence[TrainingBatch]) -> Tensor:
        """Add gradients as `Engine.backward` does; start again with smaller pieces when memory runs out.

        Raises:
            ConfigError: the memory of the device is too small even for small pieces.
        """
        while True:
            try:
                return super().backward(batches)
            except torch.OutOfMemoryError as error:
                reason = first_line(error)
            # Only after the error is gone, which keeps alive the tensors that were made until then.
            self.make_room(batches, reason)

    def make_room(self, batches: Sequence[TrainingBatch], reason: str) -> None:
        """Drop the gradients so far, and halve the pieces of the largest batch."""
        self.drop_gradients()
        self.free_memory()
        if any(batch.shared for batch in batches):  # the others wait for this process, and would have to start again
            raise ConfigError(
                f"{self.model.device} has too little memory for its rows of a batch ({reason}); expected room for "
                f"them: lower batch_size or max_seq_length, or take a loss with a gradient cache"
            )
        packed = [texts for batch in batches for texts in batch.texts]
        largest, longest = max(texts.tokens for texts in packed), max(texts.max_length for texts in packed)
        limit = self.max_tokens or largest
        if limit < largest and limit // 2 <= longest:  # then a piece was a single text already
            raise ConfigError(
                f"{self.model.device} has too little memory for a batch ({reason}); expected room for it: lower "
                f"batch_size or max_seq_length"
            )
        self.max_tokens = min(limit, largest) // 2
        if not self._warned:
            self._warned = True
            warn(
                f"{self.model.device} has too little memory for a batch of {largest:,} tokens: from now on large "
                f"batches are embedded in pieces, twice each, which gives the same gradients and takes longer"
            )

    def free_memory(self) -> None:
        """Give back memory that torch keeps for later."""
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    def embed(self, texts: PackedBatch) -> Tensor:
        """Embed texts, in pieces if they have too many tokens: (texts, dim), in packed order."""
        if not self.in_pieces(texts):
            return super().embed(texts)

        def embedded(_: Tensor, piece: PackedBatch) -> Tensor:
            return super(PiecewiseEngine, self).embed(piece)

        # Backward embeds each piece again, with the same random draws on the device of the tensor argument.
        return torch.cat(
            [
                checkpoint(embedded, piece.input_ids, piece, use_reentrant=False)
                for piece in texts.cut((self.max_tokens or texts.tokens) // 2)
            ]
        )

    def in_pieces(self, texts: PackedBatch) -> bool:
        """Return True if texts have too many tokens to be embedded at once."""
        return self.max_tokens is not None and texts.tokens > self.max_tokens


class CapturedEngine(PiecewiseEngine):
    """An engine for CUDA devices, which never waits for them and captures what it launches as CUDA graphs.

    Gradients keep their memory from step to step, and the number of updates is known to the device alone.
    """

    asynchronous = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        device = self.model.device
        self.max_tokens = MAX_TOKENS
        self._record = CudaGraphs(device)
        self._captures = _is_capturable(self.model, self.losses)
        self._graphs: dict[tuple[int, float], Graphs[Tensor]] = {}  # by data set and divisor
        self._loss, self._norm, self.updates, self.rate = (
            torch.zeros((), dtype=torch.float64, device=device) for _ in range(4)
        )
        self._clip, self._update = Recorded(self._clip_here, self._record), Recorded(self._update_here, self._record)

    @contextmanager
    def running(self, *, updates: int) -> Iterator[None]:
        """Allocate the gradients, and put the learning rates on the device."""
        self.updates.fill_(updates)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = torch.zeros((), device=self.model.device)
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        try:
            yield
        finally:
            for parameter in self.parameters:
                parameter.grad = None

    def backward_batch(self, batch: TrainingBatch, embed: Callable[[PackedBatch], Tensor]) -> Tensor:
        """Add the gradients of a batch, captured for batches of its size; the result holds until the next call."""
        texts = batch.texts[0]
        if not self._captures or len(batch.texts) > 1 or self.in_pieces(texts):
            return super().backward_batch(batch, embed)
        key = batch.dataset, batch.divisor
        if key not in self._graphs:

            def work(filled: PackedBatch, labels: Tensor | None) -> Tensor:
                # In one piece: a filled batch has tokens that belong to no text.
                whole = super(PiecewiseEngine, self).embed
                filled_batch = batch._replace(texts=(filled,), labels=labels)
                return super(CapturedEngine, self).backward_batch(filled_batch, whole)

            self._graphs[key] = Graphs(work, self.model.device, fill_texts=False, record=self._record)
        return self._graphs[key](texts, batch.labels)

    def free_memory(self) -> None:
        """Free the graphs too, which hold memory of their own."""
        self._graphs.clear()
        super().free_memory()

    def clip(self, loss: Tensor) -> Tensor:
        """Clip the gradients; the norm holds until the next call."""
        self._loss.copy_(loss)
        return self._clip()

    def update(self, norm: Tensor) -> None:
        """Update the weights if the norm is finite, and set the gradients to 0."""
        self._norm.copy_(norm)
        self._update()

    def drop_gradients(self) -> None:
        """Set the gradients to 0."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=False)

    def _clip_here(self) -> Tensor:
        return super().clip(self._loss)

    def _update_here(self) -> Tensor:
        highest, factor = self.schedule.highest, self.schedule.factor(self.updates)
        self.rate.copy_(highest * factor)
        found_inf = 1 - self._norm.isfinite().float()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"].copy_(group.get("highest", highest) * factor)
            # Fused optimizers read on the device itself that they are to change nothing; torch's scaler does the same.
            setattr(optimizer, "found_inf", found_inf)  # noqa: B010
            optimizer.step()
            delattr(optimizer, "found_inf")
        self.updates += 1 - found_inf
        self.scaler.update()
        self.drop_gradients()
        return found_inf


def _is_own(module: nn.Module) -> bool:
    """Return True for a module of minisbert, or of its `compat`, and not for one that a caller has derived."""
    kinds = (Transformer, Pooling, Normalize, Dense, LayerNorm, Dropout)
    return isinstance(module, kinds) and type(module).__module__.split(".")[0] == __name__.split(".")[0]


def _is_capturable(model: EmbeddingModel, losses: nn.ModuleList) -> bool:
    """Return True if a step launches the same kernels for all batches of a size, and never waits for the device."""
    encoder = model.transformer.encoder
    poolings = [module for module in model if isinstance(module, Pooling)]
    return (
        isinstance(encoder, Encoder)
        and encoder.recordable
        and all(isinstance(loss, Loss) and loss.recordable for loss in losses)
        and not (world_size() > 1 and any(getattr(loss, "gather_across_devices", False) for loss in losses))
        and all(map(_is_own, model))
        and all(pooling.pooling_mode == ("mean",) and pooling.include_prompt for pooling in poolings)
    )
