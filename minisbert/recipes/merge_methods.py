"""Methods of merging: the tensors of one name in several models to one tensor, in float32.

linear: Wortsman et al. 2022, https://arxiv.org/abs/2203.05482. slerp: interpolation on the great circle through two
tensors (Shoemake 1985). task_arithmetic: Ilharco et al. 2022, https://arxiv.org/abs/2212.04089. ties: Yadav et al.
2023, https://arxiv.org/abs/2306.01708. Where papers leave a choice open, it is that of mergekit 0.1.5, with which the
reference merges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ..errors import ConfigError
from ..similarity import is_number

MergeMethod: TypeAlias = Literal["linear", "slerp", "task_arithmetic", "ties"]
_PARALLEL = 0.9995  # cosine, of either sign, from which on slerp is a straight line
_SHORT = 1e-8  # length of a tensor that slerp takes as it is, without a direction
_PIECE = 1 << 20  # elements that are in float64 at once


@dataclass(frozen=True)
class MergeSettings:
    """A method and its numbers, checked.

    Attributes:
        method: name of the method.
        weights: of each model but the base; empty for slerp.
        densities: share of the elements to keep of each model but the base; empty but for ties.
        t: place between the base (0) and the other model (1), for slerp.
    """

    method: MergeMethod
    weights: tuple[float, ...] = ()
    densities: tuple[float, ...] = ()
    t: float = 0.5


def read_settings(
    method: str,
    others: int,
    *,
    has_base: bool,
    weights: float | Sequence[float] | None,
    density: float | Sequence[float] | None,
    t: float | None,
) -> MergeSettings:
    """Check the numbers of a method.

    Args:
        method: name of the method.
        others: number of models, the base not counted.
        has_base: there is a base.
        weights: one for each of these models, or one for all.
        density: the same of the shares to keep.
        t: place between two models.

    Raises:
        ConfigError: the method is unknown, a number is impossible, or one is given that the method does not use.
    """
    known: dict[str, MergeMethod] = {name: name for name in get_args(MergeMethod)}
    if not isinstance(method, str) or method not in known:
        raise ConfigError(f"got method={method!r}; expected one of {', '.join(get_args(MergeMethod))}")
    used = {"linear": ("weights",), "slerp": ("t",), "task_arithmetic": ("weights",), "ties": ("weights", "density")}
    for name, value in {"weights": weights, "density": density, "t": t}.items():
        if value is not None and name not in used[method]:
            raise ConfigError(f"got {value!r} as {name} for {method}, which has none; expected {_listed(used[method])}")
    if method == "linear" and has_base:
        raise ConfigError("got a base for linear, which has none; expected models alone: leave it out")
    if method in ("task_arithmetic", "ties") and not has_base:
        raise ConfigError(f"got no base for {method}; expected the model that all were trained from: give it as base")
    if method == "slerp":
        if others != 1:
            raise ConfigError(f"got {others + 1} models for slerp; expected two, of which the base is one")
        place = 0.5 if t is None else t
        if not is_number(place) or not 0 <= place <= 1:
            raise ConfigError(f"got t={place!r}; expected a number from 0, the base, to 1, the other model")
        return MergeSettings("slerp", t=float(place))
    each = _numbers("weights", 1.0 if weights is None else weights, others)
    total = float(torch.tensor(each).sum())  # in float32, as it is used
    if method == "linear" and (total == 0 or not math.isfinite(total)):
        raise ConfigError(
            f"got weights={list(each)}, whose sum is {total:g}; expected another sum, by which linear divides"
        )
    if method != "ties":
        return MergeSettings(known[method], each)
    shares = _numbers("density", 1.0 if density is None else density, others)
    if wrong := [share for share in shares if not 0 < share <= 1]:
        raise ConfigError(f"got density={wrong[0]!r}; expected shares of at most 1 and above 0, such as 0.5")
    return MergeSettings("ties", each, shares)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)


def _numbers(name: str, value: Any, count: int) -> tuple[float, ...]:
    """Return finite numbers, one for each model.

    Raises:
        ConfigError: they are others, or another number of them.
    """
    one = is_number(value)
    values = [value] * count if one else list(value) if isinstance(value, Sequence) else [value]
    if isinstance(value, str) or not all(is_number(number) and math.isfinite(number) for number in values):
        raise ConfigError(f"got {value!r} as {name}; expected finite numbers, one for each model")
    if len(values) != count:
        raise ConfigError(
            f"got {len(values)} numbers as {name} for {count} model{'s' if count > 1 else ''} (a base has none); "
            f"expected one for each, in their order, or one for all"
        )
    return tuple(map(float, values))


def combine(settings: MergeSettings, tensors: Sequence[Tensor], base: Tensor | None = None) -> Tensor:
    """Merge tensors of one shape, float32.

    Args:
        settings: the method.
        tensors: one of each model but the base, in their order.
        base: that of the base; None for linear.
    """
    if base is None:
        return linear(tensors, settings.weights)
    if settings.method == "slerp":
        return slerp(base, tensors[0], settings.t)
    if settings.method == "task_arithmetic":
        return base + _changes(tensors, base, settings.weights).sum(dim=0)
    return ties(tensors, base, settings.weights, settings.densities)


def linear(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Compute the weighted mean."""
    factors = torch.tensor(weights)
    total = torch.zeros_like(tensors[0])
    for tensor, factor in zip(tensors, factors, strict=True):
        total.addcmul_(tensor, factor)
    return total.div_(factors.sum())


def slerp(start: Tensor, end: Tensor, t: float) -> Tensor:
    """Interpolate between two tensors along the arc between their directions; those that are parallel, on a line.

    A tensor of length 0 has no direction: its cosine with another counts as 0.
    """
    squares = _product(start, start), _product(end, end)
    lengths = [length if (length := math.sqrt(square)) > _SHORT else 1.0 for square in squares]
    cosine = _product(start, end) / lengths[0] / lengths[1]
    if abs(cosine) > _PARALLEL:
        return start * (1 - t) + end * t
    angle = math.acos(cosine)
    return start * (math.sin((1 - t) * angle) / math.sin(angle)) + end * (math.sin(t * angle) / math.sin(angle))


def _product(a: Tensor, b: Tensor) -> float:
    """Return the inner product of all elements, summed in float64."""
    flat, other = a.flatten(), b.flatten()
    places = [slice(start, start + _PIECE) for start in range(0, len(flat), _PIECE)]
    return math.fsum(float(torch.dot(flat[place].double(), other[place].double())) for place in places)


def ties(tensors: Sequence[Tensor], base: Tensor, weights: Sequence[float], densities: Sequence[float]) -> Tensor:
    """Add to the base the mean of its largest changes, element by element those of the sign that has more weight."""
    changes = _changes(tensors, base, weights, densities)
    sign = torch.where(changes.sum(dim=0) >= 0, 1.0, -1.0)
    agree = changes.sign() == sign
    factors = torch.tensor(weights).reshape(-1, *[1] * base.ndim)
    share = (factors * agree).sum(dim=0)
    share[share == 0] = 1  # where no model changes anything, or weights cancel out
    return base + (changes * agree).sum(dim=0) / share


def _changes(
    tensors: Sequence[Tensor], base: Tensor, weights: Sequence[float], densities: Sequence[float] = ()
) -> Tensor:
    """Return what each tensor changes of the base, trimmed and weighted: (tensors, ...)."""
    changes = torch.stack([tensor - base for tensor in tensors])
    for change, density, weight in zip(changes, densities or [1.0] * len(tensors), weights, strict=True):
        if density < 1:
            trim(change, density)
        change.mul_(weight)
    return changes


def trim(change: Tensor, density: float) -> None:
    """Set all but the largest elements to 0, in place; at least one stays.

    Of equal ones on the border those stay that torch sorts to the front, as in mergekit.
    """
    sizes = change.abs().flatten()
    kept = torch.zeros_like(sizes)
    kept[sizes.argsort(descending=True)[: max(1, int(density * len(sizes)))]] = 1
    change.mul_(kept.reshape(change.shape))
