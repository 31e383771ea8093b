"""What the old `fit` needs beside the loop that it shares: its replay, and its train objectives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from ..data.roles import TrainingRows, training_rows
from ..errors import ConfigError
from ..losses import Loss
from .config import TrainingConfig
from .replay import FitReplay
from .trainer import Trainer


class FitTrainer(Trainer):
    """A Trainer whose replay is that of `fit`."""

    replay = FitReplay


def read_objectives(
    objectives: Sequence[tuple[Any, Loss]], *, keep_order: bool
) -> tuple[dict[str, TrainingRows], dict[str, Loss], int]:
    """Return rows and losses under the reference's names, and the batch size.

    Raises:
        ConfigError: there is no objective, one is not a pair of rows and loss, or their batch sizes differ.
    """
    if not isinstance(objectives, Sequence) or not objectives:
        raise ConfigError("got no train objectives; expected a list of at least one pair (rows, loss)")
    for objective in objectives:
        if not isinstance(objective, (tuple, list)) or len(objective) != 2:
            raise ConfigError(f"got {type(objective).__name__} as a train objective; expected a pair (rows, loss)")
    names = [f"_dataset_{number}" for number in range(1, len(objectives) + 1)]
    rows = [training_rows(_rows(data, keep_order=keep_order)) for data, _ in objectives]
    sizes = {_batch_size(data) for data, _ in objectives}
    if len(sizes) > 1:
        raise ConfigError(f"got batch sizes {sorted(sizes)}; expected one for all objectives: make them equal")
    losses = [loss for _, loss in objectives]
    return dict(zip(names, rows, strict=True)), dict(zip(names, losses, strict=True)), sizes.pop()


def _rows(data: Any, *, keep_order: bool) -> Any:
    """Take the rows out of a DataLoader; training shuffles them again.

    It is iterated once, as in the reference, so its sampler decides which rows there are. With `keep_order`, for a
    replay, it draws from the global generator, which decides their order.
    """
    if not isinstance(data, DataLoader):
        return data
    collate, data.collate_fn = data.collate_fn, list
    if data.batch_size is None and data.batch_sampler is None:  # a loader that yields rows one by one
        data.collate_fn = _one_row
    try:
        with torch.random.fork_rng(devices=[], enabled=not keep_order):
            if not keep_order:
                torch.manual_seed(0)
            return [row for batch in data for row in batch]
    finally:
        data.collate_fn = collate


def _one_row(row: Any) -> list[Any]:
    return [row]


def _batch_size(data: Any) -> int:
    size = getattr(data, "batch_size", None) or getattr(getattr(data, "batch_sampler", None), "batch_size", None)
    return size or TrainingConfig.batch_size
