"""The parts of the losses of a run that are not the model: a loss may hold the model too, as the reference's do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor, nn


def own_modules(losses: Iterable[nn.Module], model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules of losses that are none of the model's, each once."""
    seen = {*model.modules()}
    for loss in losses:
        for _, module in loss.named_modules(memo=seen):
            yield module


def own_parameters(losses: Iterable[nn.Module], model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of these modules, each once; a decoder may share some with the model."""
    every = (one for module in own_modules(losses, model) for one in module.parameters(recurse=False))
    return list(dict.fromkeys(every))


def own_state(losses: nn.Module, model: nn.Module) -> dict[str, Tensor]:
    """Return the state of losses without that of a model that they hold."""
    held = _held(losses, model)
    return {name: tensor for name, tensor in losses.state_dict().items() if not name.startswith(held)}


def load_own_state(losses: nn.Module, model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load what `own_state` returned.

    Raises:
        RuntimeError: it does not fit.
    """
    held = _held(losses, model)
    inherited = {name: tensor for name, tensor in losses.state_dict().items() if name.startswith(held)}
    losses.load_state_dict({**inherited, **state})


def _held(losses: nn.Module, model: nn.Module) -> tuple[str, ...]:
    """Return what the names of a model's tensors begin with, wherever a loss holds the model."""
    parts = {*model.modules()}
    return tuple(f"{name}." for name, module in losses.named_modules(remove_duplicate=False) if module in parts)
