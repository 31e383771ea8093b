"""Distances between embeddings, under the names that the losses print in model cards."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..similarity import normalize_embeddings, pairwise_euclidean_sim, pairwise_manhattan_sim
from .base import function_name

PairDistance: TypeAlias = Callable[[Tensor, Tensor], Tensor]
MatrixDistance: TypeAlias = Callable[[Tensor], Tensor]


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    """Return 1 - cosine of each row of `x` and the same row of `y`: (n,)."""
    return 1 - F.cosine_similarity(x, y)


def _euclidean(x: Tensor, y: Tensor) -> Tensor:
    """Return the euclidean distance of each row of `x` from the same row of `y`: (n,).

    torch adds 1e-6 to each difference first.
    """
    return F.pairwise_distance(x, y, p=2)


def _manhattan(x: Tensor, y: Tensor) -> Tensor:
    """Return the manhattan distance of each row of `x` from the same row of `y`: (n,).

    torch adds 1e-6 to each difference first.
    """
    return F.pairwise_distance(x, y, p=1)


def _exact_euclidean(x: Tensor, y: Tensor) -> Tensor:
    return -pairwise_euclidean_sim(x, y)


def _exact_manhattan(x: Tensor, y: Tensor) -> Tensor:
    return -pairwise_manhattan_sim(x, y)


class TripletDistanceMetric:
    """Distances of `TripletLoss`: (n, dim) and (n, dim) to (n,)."""

    COSINE = _cosine
    EUCLIDEAN = _exact_euclidean
    MANHATTAN = _exact_manhattan


class SiameseDistanceMetric:
    """Distances of `ContrastiveLoss` and `OnlineContrastiveLoss`: (n, dim) and (n, dim) to (n,)."""

    EUCLIDEAN = _euclidean
    MANHATTAN = _manhattan
    COSINE_DISTANCE = _cosine


class BatchHardTripletLossDistanceFunction:
    """Distances of the losses that find triplets within a batch: (n, dim) to those of all pairs, (n, n)."""

    @staticmethod
    def cosine_distance(embeddings: Tensor) -> Tensor:
        """Return 1 - cosine of all pairs."""
        normalized = normalize_embeddings(embeddings)
        return 1 - normalized @ normalized.T

    @staticmethod
    def euclidean_distance(embeddings: Tensor, squared: bool = False) -> Tensor:
        """Return the euclidean distances of all pairs, from |a|^2 - 2ab + |b|^2; `squared` leaves out the root.

        The gradient of a distance of 0 is 0.
        """
        products = embeddings @ embeddings.T
        squares = products.diagonal()
        distances = (squares[None, :] - 2 * products + squares[:, None]).clamp(min=0)
        if squared:
            return distances
        zero = distances == 0
        return torch.where(zero, 0, torch.where(zero, 1, distances).sqrt())

    eucledian_distance = euclidean_distance  # the reference's older name


def named(family: type) -> dict[str, Callable[..., Tensor]]:
    """Return the distances of one of the classes above, by the names that cards print."""
    prefix = "" if family is BatchHardTripletLossDistanceFunction else f"{family.__name__}."
    return {f"{prefix}{name}": getattr(family, name) for name in vars(family) if not name.startswith("_")}


def name_of(distance: Callable[..., Tensor], family: type) -> str:
    """Return the name of a distance for the model card: that of its class, or the function's own."""
    known = next((name for name, function in named(family).items() if function is distance), None)
    return known or function_name(distance)


def check_distance(distance: object, family: type) -> None:
    """Raise ConfigError unless a distance can be called."""
    if not callable(distance):
        raise ConfigError(
            f"got distance_metric={distance!r}; expected a function, such as {family.__name__}."
            f"{next(name for name in vars(family) if not name.startswith('_'))}"
        )
