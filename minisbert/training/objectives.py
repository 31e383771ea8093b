"""What `fit` is given to train on: pairs of rows, often in a DataLoader, and a loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from ..data.roles import TrainingRows, training_rows
from ..errors import ConfigError
from ..losses import Loss
from .config import ReplayVersion, TrainingConfig
from .replay import FitReplay, Replay
from .trainer import Trainer


@dataclass(frozen=True)
class Objectives:
    """Data sets and losses under the names that the reference gives them.

    Attributes:
        rows: of each objective.
        losses: of each objective.
        batch_size: rows of a batch.
    """

    rows: dict[str, TrainingRows]
    losses: dict[str, Loss]
    batch_size: int

    @classmethod
    def of(cls, objectives: Sequence[tuple[Any, Loss]], *, replay: ReplayVersion | None) -> Objectives:
        """Take the rows out of their DataLoaders. They are shuffled anew in training.

        A loader is iterated once, as the reference does, so that its sampler decides which rows there are. With
        `replay` it draws from the global generator, which decides their order.

        Raises:
            ConfigError: there is no objective, one is no pair of rows and loss, or their batch sizes differ.
        """
        if not isinstance(objectives, Sequence) or not objectives:
            raise ConfigError("got no train objectives; expected a list of at least one pair (rows, loss)")
        for objective in objectives:
            if not isinstance(objective, (tuple, list)) or len(objective) != 2:
                raise ConfigError(f"got {type(objective).__name__} as a train objective; expected a pair (rows, loss)")
        names = [f"_dataset_{number}" for number in range(1, len(objectives) + 1)]
        rows = [training_rows(_rows(data, in_its_order=replay is not None)) for data, _ in objectives]
        sizes = {_batch_size(data) for data, _ in objectives}
        if len(sizes) > 1:
            raise ConfigError(f"got batch sizes {sorted(sizes)}; expected one for all objectives: make them equal")
        losses = [loss for _, loss in objectives]
        return cls(dict(zip(names, rows, strict=True)), dict(zip(names, losses, strict=True)), sizes.pop())

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch: all of the smallest data set, and as many of the others."""
        return min(math.ceil(len(rows) / self.batch_size) for rows in self.rows.values()) * len(self.rows)


class FitTrainer(Trainer):
    """A Trainer whose replay is that of `fit`."""

    def _replay(self) -> Replay | None:
        return FitReplay(self.config.replay) if self.config.replay is not None else None


def _rows(data: Any, *, in_its_order: bool) -> Any:
    if not isinstance(data, DataLoader):
        return data
    collate, data.collate_fn = data.collate_fn, list
    if data.batch_size is None and data.batch_sampler is None:  # a loader that gives rows one by one
        data.collate_fn = _one_row
    try:
        with nullcontext() if in_its_order else torch.random.fork_rng(devices=[]):
            if not in_its_order:
                torch.manual_seed(0)
            return [row for batch in data for row in batch]
    finally:
        data.collate_fn = collate


def _one_row(row: Any) -> list[Any]:
    return [row]


def _batch_size(data: Any) -> int:
    size = getattr(data, "batch_size", None) or getattr(getattr(data, "batch_sampler", None), "batch_size", None)
    return size or TrainingConfig.batch_size
