"""What `fit` is given to train on: pairs of rows, often in a DataLoader, and a loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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

        With `replay` a loader is iterated, as the reference does, for the order it gives and the random numbers it
        draws; otherwise it is only asked for its data set.

        Raises:
            ConfigError: there is no objective, or their batch sizes differ.
        """
        if not objectives:
            raise ConfigError("got no train objectives; expected at least one pair (rows, loss)")
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
    dataset = getattr(data, "dataset", None)
    if dataset is None:
        return data
    if not in_its_order:
        return dataset
    collate, data.collate_fn = data.collate_fn, list
    try:
        return [row for batch in data for row in batch]
    finally:
        data.collate_fn = collate


def _batch_size(data: Any) -> int:
    size = getattr(data, "batch_size", None) or getattr(getattr(data, "batch_sampler", None), "batch_size", None)
    return size or TrainingConfig.batch_size
