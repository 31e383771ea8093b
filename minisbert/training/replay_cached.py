"""The gradient cache in the reference's mini-batches and order, for replay.

Each column is embedded by itself, in mini-batches in the order of the rows, without gradients; the loss is computed and
differentiated as far as to these embeddings; then, in backward, the mini-batches are embedded again in the same order,
each under the random state of its first time, and its gradients go back through the model at once. The packed cache
of `gradient_cache.py` goes through the mini-batches from the last to the first, which adds up to other last bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..losses import Loss
from ..modules.features import Features
from ..packing import PackedBatch, PaddedBatch
from .dataset import TrainingBatch
from .loop import Engine


class _MiniBatch(NamedTuple):
    """Texts of one column, the random state before they were embedded, and their embeddings, (texts, dim)."""

    texts: PaddedBatch
    state: Tensor
    embeddings: Tensor


class ReplayEngine(Engine):
    """Compute losses with a gradient cache as 6.2 does, and others as written in `loop.py`.

    Attributes:
        trims: cut off the padding that all texts of a mini-batch have.
    """

    trims = True

    def loss(self, of: nn.Module, batch: TrainingBatch, embed: Callable[[PackedBatch], Tensor]) -> Any:
        """Return the loss; with a gradient cache, backward of it starts at the embeddings' gradients, found here."""
        if not (isinstance(of, Loss) and of.cached):
            return super().loss(of, batch, embed)
        columns: list[list[_MiniBatch]] = []
        guided: list[list[Tensor]] = []
        with_gradients = torch.is_grad_enabled()
        for texts in batch.texts:
            columns.append([])
            guided.append([])
            for part in cast(PaddedBatch, texts).cut_padded(
                of.mini_batch_size, tokens=of.mini_batch_num_tokens, trimmed=self.trims
            ):
                state = torch.get_rng_state()
                with torch.no_grad():
                    columns[-1].append(_MiniBatch(part, state, embed(part).requires_grad_(with_gradients)))
                    if of.guide is not None:
                        guided[-1].append(of.guide(Features(part)).sentences)
        embeddings = [torch.cat([part.embeddings for part in column]) for column in columns]
        third = [] if of.guide is None else [[torch.cat(column) for column in guided]]
        value: Tensor = self.sum_of_terms(of(embeddings, batch.labels, *third))
        if not with_gradients:
            return value
        parts = [part for column in columns for part in column]
        gradients = torch.autograd.grad(value, [part.embeddings for part in parts])

        def embed_again(share: Tensor) -> None:
            with torch.enable_grad(), torch.random.fork_rng(devices=[]):
                for part, gradient in zip(parts, gradients, strict=True):
                    torch.set_rng_state(part.state)
                    torch.autograd.backward(embed(part.texts), gradient * share)

        value = value.detach().requires_grad_()
        value.register_hook(embed_again)  # type: ignore[no-untyped-call]
        return value


class ReplayEngine51(ReplayEngine):
    """Compute losses with a gradient cache as 5.1 does, where mini-batches have the padding of their column."""

    trims = False
