"""Learning-rate schedules: the share of the highest rate by the number of updates done.

The formulas are those of transformers' schedules of the same names, evaluated in float64 in the same order, so that
rates are equal to the last bit on the CPU. On a GPU they are computed there, without waiting for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..errors import ConfigError

if TYPE_CHECKING:  # the settings are read before torch is needed
    from torch import Tensor

SchedulerName: TypeAlias = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "cosine_with_min_lr",
    "polynomial",
    "inverse_sqrt",
    "constant",
    "constant_with_warmup",
]


@dataclass(frozen=True)
class Schedule:
    """A constant rate after a warm-up.

    Attributes:
        highest: the rate at the end of the warm-up.
        warmup: updates over which the rate rises from 0.
        total: updates of the whole run.
    """

    highest: float
    warmup: int
    total: int

    def rate(self, done: Tensor) -> Tensor:
        """Return the learning rate after `done` updates, float64, without waiting for a GPU."""
        return self.highest * self.factor(done)

    def factor(self, done: Tensor) -> Tensor:
        """Return the share of the highest rate after `done` updates, float64, without waiting for a GPU."""
        return (done / max(1, self.warmup)).where(done < self.warmup, self.after_warmup(done))

    def after_warmup(self, done: Tensor) -> Tensor:
        """Return the share after `done` updates, if the warm-up is over by then."""
        return done * 0 + 1

    def progress(self, done: Tensor) -> Tensor:
        """Return how far `done` updates are from the end of the warm-up, 0, to the end of the run, 1."""
        return (done - self.warmup) / max(1, self.total - self.warmup)


@dataclass(frozen=True)
class Constant(Schedule):
    """The highest rate throughout; there is no warm-up."""

    def factor(self, done: Tensor) -> Tensor:
        """Return 1."""
        return self.after_warmup(done)


@dataclass(frozen=True)
class Linear(Schedule):
    """Down to 0 in a straight line."""

    def after_warmup(self, done: Tensor) -> Tensor:
        """Return the share of the updates that are left."""
        return ((self.total - done) / max(1, self.total - self.warmup)).clamp(min=0)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Along `num_cycles` waves of a cosine; half a wave ends at 0."""

    num_cycles: float = 0.5

    def after_warmup(self, done: Tensor) -> Tensor:
        """Return the height of the wave."""
        return self.wave(done).clamp(min=0)

    def wave(self, done: Tensor) -> Tensor:
        """Return the height of the wave, between 0 and 1."""
        return 0.5 * (1 + _cosine(math.pi * self.num_cycles * 2 * self.progress(done)))


@dataclass(frozen=True)
class CosineWithFloor(Cosine):
    """Along a cosine that ends at `min_lr`, or at the share `min_lr_rate` of the highest rate."""

    min_lr: float | None = None
    min_lr_rate: float | None = None

    def after_warmup(self, done: Tensor) -> Tensor:
        """Return the height of the wave above the floor."""
        floor = self.min_lr_rate if self.min_lr is None else self.min_lr / self.highest
        return (self.wave(done) * (1 - (floor or 0.0)) + (floor or 0.0)).clamp(min=0)


@dataclass(frozen=True)
class CosineWithRestarts(Schedule):
    """Down to 0 along half a wave of a cosine, `num_cycles` times."""

    num_cycles: float = 1

    def after_warmup(self, done: Tensor) -> Tensor:
        """Return the height of the half wave; 0 at the end of the run."""
        progress = self.progress(done)
        height = 0.5 * (1 + _cosine(math.pi * ((self.num_cycles * progress) % 1.0)))
        return height.clamp(min=0) * (progress < 1)


@dataclass(frozen=True)
class Polynomial(Schedule):
    """Down to the rate `lr_end` along a curve of degree `power`."""

    lr_end: float = 1e-7
    power: float = 1.0

    def after_warmup(self, done: Tensor) -> Tensor:
        """Return the height of the curve."""
        left = _power((1 - self.progress(done)).clamp(min=0), self.power)
        return ((self.highest - self.lr_end) * left + self.lr_end) / self.highest


@dataclass(frozen=True)
class InverseRoot(Schedule):
    """Down with the square root of the updates, counted in units of `timescale` (the warm-up, or 10,000)."""

    timescale: float | None = None

    def after_warmup(self, done: Tensor) -> Tensor:
        """Return one by the root of the updates."""
        scale = self.timescale or self.warmup or 10_000
        return 1 / _root(((done + (scale - self.warmup)) / scale).clamp(min=1))


_SCHEDULES: dict[SchedulerName, type[Schedule]] = {
    "linear": Linear,
    "cosine": Cosine,
    "cosine_with_restarts": CosineWithRestarts,
    "cosine_with_min_lr": CosineWithFloor,
    "polynomial": Polynomial,
    "inverse_sqrt": InverseRoot,
    "constant": Constant,
    "constant_with_warmup": Schedule,
}
_POSITIVE = ("num_cycles", "power", "timescale")
# The names that the old `fit` takes, in lower case.
FIT_SCHEDULES: dict[str, SchedulerName] = {
    "constantlr": "constant",
    "warmupconstant": "constant_with_warmup",
    "warmuplinear": "linear",
    "warmupcosine": "cosine",
    "warmupcosinewithhardrestarts": "cosine_with_restarts",
}


def fit_schedule(scheduler: object) -> SchedulerName:
    """Return the name of the schedule that the old `fit` calls `scheduler`, in any case.

    Raises:
        ConfigError: it has no such name.
    """
    if not isinstance(scheduler, str) or scheduler.lower() not in FIT_SCHEDULES:
        raise ConfigError(f"got scheduler {scheduler!r}; expected one of {', '.join(FIT_SCHEDULES)}, in any case")
    return FIT_SCHEDULES[scheduler.lower()]


def make_schedule(
    name: SchedulerName, *, highest: float, warmup: int, total: int, parameters: Mapping[str, float] | None = None
) -> Schedule:
    """Make a schedule by its name; `parameters` are its own, such as `num_cycles`."""
    return _SCHEDULES[name](highest, warmup, total, **(parameters or {}))


def schedule_parameters(name: SchedulerName) -> tuple[str, ...]:
    """Return the names of the parameters of a schedule."""
    shared = {field.name for field in fields(Schedule)}
    return tuple(field.name for field in fields(_SCHEDULES[name]) if field.name not in shared)


def parameter_problem(name: SchedulerName, parameters: Mapping[str, Any], *, highest: float) -> str | None:
    """Return what the parameters of a schedule must be, or None if they are that."""
    known = schedule_parameters(name)
    for key, value in parameters.items():
        if key not in known:
            return f"only {', '.join(known)} for {name}" if known else f"none for {name}: leave it out"
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
        if not number or (key in _POSITIVE and not value):
            return f"a number {'above' if key in _POSITIVE else 'from'} 0 for {key}"
    schedule = make_schedule(name, highest=highest, warmup=0, total=1, parameters=parameters)
    if isinstance(schedule, CosineWithFloor) and (schedule.min_lr is None) == (schedule.min_lr_rate is None):
        return "either min_lr or min_lr_rate for cosine_with_min_lr, such as {'min_lr_rate': 0.1}"
    if isinstance(schedule, Polynomial) and not schedule.lr_end < highest:
        return f"lr_end below the learning rate, {highest:g}, and not {schedule.lr_end:g}"
    return None


# ---- functions in which torch and Python differ in the last bit -----------------------------------------------------


def _cosine(angle: Tensor) -> Tensor:
    return _as_python(angle, math.cos) if angle.device.type == "cpu" else angle.cos()


def _power(base: Tensor, exponent: float) -> Tensor:
    return _as_python(base, lambda value: value**exponent) if base.device.type == "cpu" else base**exponent


def _root(values: Tensor) -> Tensor:
    return _as_python(values, math.sqrt) if values.device.type == "cpu" else values.sqrt()


def _as_python(values: Tensor, function: Callable[[float], float]) -> Tensor:
    return values.clone().apply_(function)
