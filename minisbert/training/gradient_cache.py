"""The gradient cache: embed a batch in mini-batches, twice each, so that memory does not grow with the batch.

Losses over all pairs of a batch need all its embeddings at once, but not all that backward through the model needs.
Each mini-batch is first embedded for its embeddings alone. The loss gives their gradients, the cache; then each
mini-batch is embedded again, with the same dropout, and its gradients go back through the model (Gao et al. 2021,
https://arxiv.org/abs/2101.06983). Value and gradients are those of one batch, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..packing import PackedBatch

Embed: TypeAlias = Callable[[PackedBatch], Tensor]  # texts to (texts, dim), in packed order


def mini_batches(loss: nn.Module, texts: PackedBatch) -> list[PackedBatch]:
    """Split texts, in packed order, as the loss asks: by number of tokens or of texts, or not at all."""
    if not getattr(loss, "cached", False):
        return [texts]
    tokens = cast("int | None", loss.mini_batch_num_tokens)
    return texts.cut_texts(cast(int, loss.mini_batch_size)) if tokens is None else texts.cut(tokens)


@dataclass(frozen=True)
class GradientCache:
    """Embed mini-batches; backward embeds each of them again.

    Attributes:
        embed: embeds one.
        computing: computes a block of code in the precision of the run.
        after: called after each mini-batch of backward.
    """

    embed: Embed
    computing: Callable[[], AbstractContextManager[Any]]
    after: Callable[[], None]

    def __call__(self, mini: Sequence[PackedBatch]) -> Tensor:
        """Return the embeddings, (texts, dim), in packed order; one mini-batch alone is embedded once."""
        if len(mini) == 1:
            return self.embed(mini[0])
        if not torch.is_grad_enabled():
            return torch.cat([self.embed(texts) for texts in mini])
        root = torch.zeros((), requires_grad=True)  # autograd calls backward only where an input takes a gradient
        return torch.cat([cast(Tensor, _Cached.apply(root, texts, self)) for texts in mini])  # type: ignore[no-untyped-call]


class _Cached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, root: Tensor, texts: PackedBatch, cache: GradientCache) -> Tensor:
        ctx.texts, ctx.cache, ctx.state = texts, cache, _random_state(texts.input_ids.device)
        # As in backward, where gradients are needed: kernels for inference would round differently.
        with torch.enable_grad():
            return cache.embed(texts).detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None]:
        texts, cache = cast(PackedBatch, ctx.texts), cast(GradientCache, ctx.cache)
        with torch.enable_grad(), _replayed(ctx.state, texts.input_ids.device):
            with cache.computing():
                embeddings = cache.embed(texts)
            torch.autograd.backward(embeddings, grads[0])
        cache.after()
        return None, None, None


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return the state of torch's generator, and of the one of a GPU."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


@contextmanager
def _replayed(state: tuple[Tensor, Tensor | None], device: torch.device) -> Iterator[None]:
    """Draw from generators in `state` for a block of code; afterwards they are where they were before."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], device)
        yield
