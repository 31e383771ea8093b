"""A device with little memory, made up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from minisbert.modules import Transformer
from minisbert.modules.features import Features
from minisbert.training import builder
from minisbert.training.gpu import PiecewiseEngine


@contextmanager
def memory_for(tokens: int, *, after_backward: bool = False) -> Iterator[list[int]]:
    """Forward passes over more tokens run out of memory, here or in backward; gives the sizes that were tried."""
    tried: list[int] = []
    forward = Transformer.forward

    def limited(self: Transformer, features: Features) -> Features:
        size = features.batch.tokens
        tried.append(size)
        if size > tokens and not after_backward:
            raise torch.OutOfMemoryError("out of memory: tried to allocate\nand more")
        if size <= tokens or not torch.is_grad_enabled():
            return forward(self, features)
        hook = self.auto_model.embeddings.register_forward_hook(
            lambda _, __, made: made.register_hook(_run_out) and None
        )
        try:
            return forward(self, features)
        finally:
            hook.remove()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transformer, "forward", limited)
        patch.setattr(builder, "Engine", PiecewiseEngine)  # as on devices whose memory can run out
        yield tried


def _run_out(slopes: torch.Tensor) -> torch.Tensor:
    """Comes last in backward, when the gradients of all layers are there."""
    raise torch.OutOfMemoryError("out of memory: tried to allocate")
