"""A loss from its name and the parameters that a model card states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..errors import ConfigError
from ..similarity import cos_sim, dot_score, euclidean_sim, manhattan_sim
from .base import Loss
from .cosine import CosineSimilarityLoss
from .ranking import MultipleNegativesRankingLoss

_SIMILARITIES = {fn.__name__: fn for fn in (cos_sim, dot_score, euclidean_sim, manhattan_sim)}
_ERRORS: tuple[type[nn.Module], ...] = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
_TRANSFORMATIONS: tuple[type[nn.Module], ...] = (nn.Identity, nn.Sigmoid, nn.Tanh, nn.ReLU)


def loss_by_name(name: str, parameters: Mapping[str, Any] | None = None) -> Loss:
    """Make a loss.

    Args:
        name: its class name.
        parameters: as `Loss.get_config_dict` gives them, and the reference's cards print them; those left out have
            their defaults.

    Raises:
        ConfigError: there is no such loss, or it has no such parameter or value.
    """
    if name not in tuple(_MAKERS):
        raise ConfigError(f"got the loss {name}; expected one of {', '.join(_MAKERS)}")
    given = dict(parameters or {})
    loss = _MAKERS[name](given)
    does = loss.get_config_dict()
    for key, value in given.items():
        if key not in does or _plain(does[key]) != _plain(value):
            expected = repr(_plain(does[key])) if key in does else "no such parameter"
            raise ConfigError(f"got {key}={value!r} for {name}; expected {expected}: minisbert has no other")
    return loss


def _cosine(parameters: Mapping[str, Any]) -> Loss:
    error = _module(parameters, "loss_fct", _ERRORS)
    transformation = _module(parameters, "cos_score_transformation", _TRANSFORMATIONS)
    usual = isinstance(error, nn.MSELoss) and isinstance(transformation, nn.Identity)
    return CosineSimilarityLoss(
        loss_fct=None if usual else error, cos_score_transformation=None if usual else transformation
    )


def _ranking(parameters: Mapping[str, Any]) -> Loss:
    scale, name = parameters.get("scale", 20.0), parameters.get("similarity_fct", "cos_sim")
    if not isinstance(scale, (int, float)) or isinstance(scale, bool):
        raise ConfigError(f"got scale={scale!r}; expected a number above 0")
    if name not in tuple(_SIMILARITIES):
        raise ConfigError(f"got similarity_fct={name!r}; expected one of {', '.join(_SIMILARITIES)}")
    return MultipleNegativesRankingLoss(scale=scale, similarity_fct=_SIMILARITIES[name])


def _module(parameters: Mapping[str, Any], key: str, kinds: tuple[type[nn.Module], ...]) -> nn.Module:
    """The module a parameter names; the first of `kinds` where there is no such parameter. Nothing is imported."""
    by_name = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in kinds}
    name = parameters.get(key, next(iter(by_name)))
    if name not in tuple(by_name):
        raise ConfigError(f"got {key}={name!r}; expected one of {', '.join(by_name)}")
    return by_name[name]()


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


_MAKERS: dict[str, Callable[[Mapping[str, Any]], Loss]] = {
    "CosineSimilarityLoss": _cosine,
    "MultipleNegativesRankingLoss": _ranking,
}
