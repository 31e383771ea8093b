"""Compute something twice, for its value and again for its gradients, and keep nothing in between but its inputs.

The second time has the random draws and the autocast of the first. `torch.utils.checkpoint` does the same and imports
torch's compiler, which takes a second and 140 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def recomputed(
    function: Callable[..., Tensor], *inputs: Tensor, device: torch.device, after: Callable[[], None] | None = None
) -> Tensor:
    """Return `function(*inputs)`, of which backward computes everything again.

    Args:
        function: makes a tensor of the inputs, and of parameters, whose gradients it adds to those they have.
        inputs: tensors that may take a gradient.
        device: where it draws random numbers.
        after: called at the end of its backward.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    root = torch.zeros((), requires_grad=True)  # autograd calls backward only where an input takes a gradient
    return cast(Tensor, _Recomputed.apply(function, device, after, root, *inputs))  # type: ignore[no-untyped-call]


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        function: Callable[..., Tensor],
        device: torch.device,
        after: Callable[[], None] | None,
        root: Tensor,
        *inputs: Tensor,
    ) -> Tensor:
        ctx.function, ctx.device, ctx.after = function, device, after
        ctx.state, ctx.precision = _random_state(device), _autocast_of(device)
        ctx.wanted = [value.requires_grad for value in inputs]
        ctx.save_for_backward(*inputs)
        # As in backward, where gradients are needed: kernels for inference would round differently.
        with torch.enable_grad():
            return function(*_leaves(inputs, ctx.wanted)).detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs = _leaves(ctx.saved_tensors, ctx.wanted)
        with torch.enable_grad():
            with _replayed(ctx.state, ctx.device), torch.autocast(ctx.device.type, **ctx.precision):
                value = ctx.function(*inputs)
            torch.autograd.backward(value, grads[0])
        if ctx.after is not None:
            ctx.after()
        return (None, None, None, None, *(value.grad for value in inputs))


def _leaves(inputs: tuple[Tensor, ...], wanted: list[bool]) -> list[Tensor]:
    return [value.detach().requires_grad_(takes) for value, takes in zip(inputs, wanted, strict=True)]


def _autocast_of(device: torch.device) -> dict[str, Any]:
    """Return the arguments of the present autocast."""
    return {
        "enabled": torch.is_autocast_enabled(device.type),
        "dtype": torch.get_autocast_dtype(device.type),
        "cache_enabled": torch.is_autocast_cache_enabled(),
    }


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
