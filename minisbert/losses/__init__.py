"""Losses over embeddings, and how a model card names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..errors import ConfigError
from ..similarity import cos_sim, dot_score, euclidean_sim, manhattan_sim
from .base import Loss
from .cosine import CosineSimilarityLoss, full_name
from .ranking import MultipleNegativesRankingLoss

__all__ = ["CosineSimilarityLoss", "Loss", "MultipleNegativesRankingLoss"]

_SIMILARITIES = {fn.__name__: fn for fn in (cos_sim, dot_score, euclidean_sim, manhattan_sim)}
_ERRORS: tuple[type[nn.Module], ...] = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
_TRANSFORMATIONS: tuple[type[nn.Module], ...] = (nn.Identity, nn.Sigmoid, nn.Tanh, nn.ReLU)


def loss_by_name(name: str, parameters: Mapping[str, Any] | None = None) -> Loss:
    """Make a loss.

    Args:
        name: its class name.
        parameters: as returned by `Loss.get_config_dict`, and as printed in the reference's cards; those left out
            have their defaults.

    Raises:
        ConfigError: there is no such loss, or it has no such parameter or value.
    """
    if name not in tuple(_MAKERS):
        raise ConfigError(f"got the loss {name}; expected one of {', '.join(_MAKERS)}")
    loss = _MAKERS[name](parameters or {})
    config = loss.get_config_dict()
    for key, value in (parameters or {}).items():
        if key not in config or _plain(config[key]) != _plain(value):
            expected = repr(_plain(config[key])) if key in config else "no such parameter"
            raise ConfigError(f"got {key}={value!r} for {name}; expected {expected}: minisbert supports no other")
    return loss


def _cosine(parameters: Mapping[str, Any]) -> Loss:
    return CosineSimilarityLoss(
        loss_fct=_module(parameters, "loss_fct", _ERRORS),
        cos_score_transformation=_module(parameters, "cos_score_transformation", _TRANSFORMATIONS),
    )


def _ranking(parameters: Mapping[str, Any]) -> Loss:
    scale, name = parameters.get("scale", 20.0), parameters.get("similarity_fct", "cos_sim")
    if not isinstance(scale, (int, float)) or isinstance(scale, bool):
        raise ConfigError(f"got scale={scale!r}; expected a number above 0")
    if name not in tuple(_SIMILARITIES):
        raise ConfigError(f"got similarity_fct={name!r}; expected one of {', '.join(_SIMILARITIES)}")
    return MultipleNegativesRankingLoss(scale=scale, similarity_fct=_SIMILARITIES[name])


def _module(parameters: Mapping[str, Any], key: str, types: tuple[type[nn.Module], ...]) -> nn.Module | None:
    """Make the module that a parameter names, or None for the first of `types`, the default; nothing is imported."""
    by_name = {full_name(one): one for one in types}
    default = full_name(types[0])
    name = parameters.get(key, default)
    if name not in tuple(by_name):
        raise ConfigError(f"got {key}={name!r}; expected one of {', '.join(by_name)}")
    return None if name == default else by_name[name]()


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


_MAKERS: dict[str, Callable[[Mapping[str, Any]], Loss]] = {
    "CosineSimilarityLoss": _cosine,
    "MultipleNegativesRankingLoss": _ranking,
}
