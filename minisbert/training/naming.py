"""Parameters by name: those that a checkpoint names, to freeze or to give a rate, and those of losses, to be saved."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn

from ..errors import ConfigError, nearest
from ..losses import Loss
from ..model import EmbeddingModel
from .optimization import owned_parameters

_TRANSFORMER = "0.auto_model."
_REFERENCE = ("model.0.model.", "model.0.auto_model.")  # where versions 6 and 5 of the reference put these names


class NamedParameter(NamedTuple):
    """A parameter and its name.

    Attributes:
        name: in the weights file of the transformer; behind the index of any other module; or in a loss.
        parameter: the parameter.
        in_transformer: True if it belongs to the transformer.
    """

    name: str
    parameter: nn.Parameter
    in_transformer: bool

    @property
    def full_names(self) -> tuple[str, ...]:
        """The names that the reference's settings may use; its losses hold the model, and have names of their own."""
        if self.in_transformer:
            return tuple(f"{place}{self.name}" for place in _REFERENCE)
        return (f"model.{self.name}" if self.name[:1].isdecimal() else self.name,)


def named_parameters(model: EmbeddingModel, losses: Sequence[Loss] = ()) -> list[NamedParameter]:
    """Return the parameters of model and losses in order, each once."""
    names = {parameter: name for name, parameter in model.transformer.checkpoint_parameters().items()}
    found = []
    for name, parameter, _ in owned_parameters(model, *losses):
        plain = name.removeprefix(_TRANSFORMER)
        in_transformer = parameter in names or name.startswith(_TRANSFORMER)
        found.append(NamedParameter(names.get(parameter, plain), parameter, in_transformer))
    return found


def own_rates(
    model: EmbeddingModel, losses: Sequence[Loss], rates: Mapping[str, float] | None
) -> dict[nn.Parameter, float]:
    """Return the parameters that have a learning rate of their own, with that rate.

    Args:
        model: the model to train.
        losses: they may have parameters too.
        rates: regular expressions, searched for in the reference's names of parameters, to rates; of two that match
            a parameter the later one counts.

    Raises:
        ConfigError: an expression matches nothing.
    """
    own: dict[nn.Parameter, float] = {}
    every = named_parameters(model, losses) if rates else []
    for pattern, rate in (rates or {}).items():
        found = [one.parameter for one in every if any(re.search(pattern, name) for name in one.full_names)]
        if not found:
            raise ConfigError(_message("learning_rate_mapping", pattern, every))
        own |= dict.fromkeys(found, rate)
    return own


def frozen_parameters(model: EmbeddingModel, patterns: Sequence[str]) -> list[nn.Parameter]:
    """Return the parameters whose names begin with one of some regular expressions.

    A match ends where a part of the name ends, so that "encoder.layer.1" is not "encoder.layer.10". The reference's
    names are matched too.

    Raises:
        ConfigError: an expression matches nothing, or together they match everything.
    """
    frozen: dict[nn.Parameter, None] = {}
    every = named_parameters(model) if patterns else []
    for pattern in patterns:
        whole = re.compile(rf"(?:{pattern})(?:(?<=\.)|(?=\.)|$)")
        found = [one.parameter for one in every if any(map(whole.match, (one.name, *one.full_names)))]
        if not found:
            raise ConfigError(_message("freeze", pattern, every))
        frozen |= dict.fromkeys(found)
    if every and all(parameter in frozen or not parameter.requires_grad for _, parameter, _ in every):
        raise ConfigError(f"got freeze={list(patterns)}, which are all parameters; expected some to train: name fewer")
    return list(frozen)


@contextmanager
def freezing(model: EmbeddingModel, losses: Sequence[Loss], patterns: Sequence[str]) -> Iterator[None]:
    """Freeze parameters by name, in the model and in the copies of it that losses train, for a block of code."""
    copies = {loss.guide: None for loss in losses if loss.trains_guide and isinstance(loss.guide, EmbeddingModel)}
    frozen = [
        parameter
        for one in (model, *copies)
        for parameter in frozen_parameters(one, patterns)
        if parameter.requires_grad
    ]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def _message(setting: str, pattern: str, every: Sequence[NamedParameter]) -> str:
    """Say that nothing matches, and which names, or beginnings of names, are nearest."""
    names = dict.fromkeys(one.name for one in every)
    parts = [name.split(".") for name in names]
    known = dict.fromkeys(".".join(part[:length]) for part in parts for length in range(1, len(part) + 1))
    near = nearest(pattern, known, otherwise=names)
    return f"got {pattern!r} in {setting}, which no parameter matches; expected a name such as {near}"


# ---- what losses have beside the model, which they may hold as the reference's do ------------------------------------


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
