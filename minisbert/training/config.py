"""All settings of a training run, in one frozen dataclass."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, fields
from numbers import Integral, Real
from types import NoneType
from typing import Any, Literal, TypeAlias, get_args

from ..data.rows import DatasetOrder, RowSampling
from ..errors import ConfigError

PrecisionMode: TypeAlias = Literal["fp32", "fp16", "bf16"]
ReplayVersion: TypeAlias = Literal["5.1", "6.2"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of a training run. The defaults are the reference Trainer's.

    Attributes:
        epochs: passes over the rows.
        batch_size: rows in one forward pass.
        learning_rate: highest learning rate; it falls linearly to 0 at the last step.
        warmup_steps: optimizer steps over which the rate rises from 0; a number below 1 is a share of all steps.
        weight_decay: AdamW's, for weights that are neither biases nor of normalization layers.
        max_grad_norm: gradients are scaled down to this norm; 0 leaves them as they are.
        precision: "fp32", or mixed precision in "fp16" (with loss scaling) or "bf16". Weights stay in float32.
        compile: run the layers through torch.compile: two graphs, and two more for evaluations, serve all layers and
            batches. Other fast ways are then left out, such as CUDA graphs on a GPU.
        seed: decides row order and dropout.
        max_steps: stop after this many optimizer steps; overrides `epochs`.
        gradient_accumulation: batches whose gradients are averaged for one optimizer step.
        batch_sampler: "batch_sampler" cuts the shuffled rows into batches; "no_duplicates" also sees to it that no
            text stands twice in a batch, where it would be its own negative.
        multi_dataset_batch_sampler: with several data sets, "proportional" takes every row of each once an epoch;
            "round_robin" takes a batch of each in turn until one is used up.
        log_every: optimizer steps between two log entries.
        eval_every: optimizer steps between two evaluations; by default there is one, at the end.
        eval_each_epoch: evaluate at the end of each epoch too.
        save_every: optimizer steps between two checkpoints; by default there is one only where a run is interrupted.
        save_total_limit: keep only the newest so many checkpoints; by default all.
        replay: repeat the arithmetic and the random draws of the reference's Trainer of this version, on the CPU in
            fp32: losses and weights are then bitwise its own. By default training is packed, which is faster.
        keep_best: at the end, go back to the weights with the best primary metric.

    Raises:
        ConfigError: a value is impossible.
    """

    epochs: int = 3
    batch_size: int = 8
    learning_rate: float = 5e-5
    warmup_steps: float = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    precision: PrecisionMode = "fp32"
    compile: bool = False
    seed: int = 42
    max_steps: int | None = None
    gradient_accumulation: int = 1
    batch_sampler: RowSampling = "batch_sampler"
    multi_dataset_batch_sampler: DatasetOrder = "proportional"
    log_every: int = 500
    eval_every: int | None = None
    eval_each_epoch: bool = False
    save_every: int | None = None
    save_total_limit: int | None = None
    keep_best: bool = False
    replay: ReplayVersion | None = None

    def __post_init__(self) -> None:
        for place in fields(self):
            object.__setattr__(self, place.name, _plain(getattr(self, place.name)))
        self._check_numbers()
        self._check_choices()

    def _check_numbers(self) -> None:
        least = {
            "epochs": 1,
            "batch_size": 1,
            "gradient_accumulation": 1,
            "log_every": 1,
            "max_steps": 1,
            "eval_every": 1,
            "save_every": 1,
            "save_total_limit": 1,
            "seed": 0,
        }
        for name, smallest in least.items():
            value = getattr(self, name)
            optional = self.__dataclass_fields__[name].default is None
            if optional and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not smallest <= value < 2**32:
                raise ConfigError(f"got {name}={value!r}; expected a whole number from {smallest} to {2**32 - 1}")
        for name in ("learning_rate", "warmup_steps", "weight_decay", "max_grad_norm"):
            value = getattr(self, name)
            # A whole number can be too large for a float, which every use of it would need.
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= sys.float_info.max:
                raise ConfigError(f"got {name}={value!r}; expected a number from 0")
        if self.warmup_steps >= 1 and self.warmup_steps != int(self.warmup_steps):
            raise ConfigError(f"got warmup_steps={self.warmup_steps}; expected whole steps, or a share below 1")

    def _check_choices(self) -> None:
        for name in ("compile", "eval_each_epoch", "keep_best"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"got {name}={getattr(self, name)!r}; expected True or False")
        choices: dict[str, tuple[str | None, ...]] = {
            "precision": get_args(PrecisionMode),
            "batch_sampler": get_args(RowSampling),
            "multi_dataset_batch_sampler": get_args(DatasetOrder),
            "replay": (*get_args(ReplayVersion), None),
        }
        for name, possible in choices.items():
            value = getattr(self, name)
            if not isinstance(value, (str, NoneType)) or value not in possible:
                expected = ", ".join(map(repr, possible))
                raise ConfigError(f"got {name}={getattr(self, name)!r}; expected one of {expected}")
        if self.replay and (self.precision != "fp32" or self.compile):
            raise ConfigError(f"got replay={self.replay!r} with precision or compile; expected fp32, not compiled")

    def total_steps(self, batches_per_epoch: int) -> int:
        """Optimizer steps of the whole run."""
        return self.max_steps or self.epochs * math.ceil(batches_per_epoch / self.gradient_accumulation)

    def steps_over(self, rows: int) -> int:
        """Optimizer steps of a run over one data set of so many rows."""
        return self.total_steps(math.ceil(rows / self.batch_size))

    def warmup(self, total_steps: int) -> int:
        """Optimizer steps of the warm-up."""
        steps = self.warmup_steps
        return math.ceil(total_steps * steps) if steps < 1 else int(steps)


def _plain(value: Any) -> Any:
    """A number of numpy, such as from a grid of settings, as Python's own."""
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value
