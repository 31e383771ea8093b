"""The train objectives of the old `fit`: pairs of rows, often in a DataLoader, and losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from ..data.roles import TrainingRows, training_rows
from ..data.rows import RowSampling
from ..errors import ConfigError
from ..losses import Loss
from .config import TrainingConfig
from .replay import FitReplay
from .trainer import Trainer


class FitTrainer(Trainer):
    """A Trainer whose replay is that of `fit`."""

    replay = FitReplay


class Objectives(NamedTuple):
    """The rows and losses of `fit`, under the reference's names, and the way to make batches of the rows."""

    rows: dict[str, TrainingRows]
    losses: dict[str, Loss]
    batch_size: int
    batch_sampler: RowSampling


def read_objectives(objectives: Sequence[tuple[Any, Loss]], *, keep_order: bool) -> Objectives:
    """Read the train objectives of `fit`; with `keep_order` loaders draw from the global generators.

    Raises:
        ConfigError: there is no objective, one is not a pair of rows and loss, or their batch sizes differ.
    """
    if not isinstance(objectives, Sequence) or not objectives:
        raise ConfigError("got no train objectives; expected a list of at least one pair (rows, loss)")
    for objective in objectives:
        if not isinstance(objective, (tuple, list)) or len(objective) != 2:
            raise ConfigError(f"got {type(objective).__name__} as a train objective; expected a pair (rows, loss)")
    names = [f"_dataset_{number}" for number in range(1, len(objectives) + 1)]
    rows = [
        training_rows(_rows(data, keep_order=keep_order), classes=getattr(loss, "label_kind", None) == "class")
        for data, loss in objectives
    ]
    sizes = {_batch_size(data) for data, _ in objectives}
    if len(sizes) > 1:
        raise ConfigError(f"got batch sizes {sorted(sizes)}; expected one for all objectives: make them equal")
    losses = [loss for _, loss in objectives]
    samplers = [_batch_sampler(data) for data, _ in objectives]
    plain: RowSampling = "batch_sampler"
    chosen = next((sampler for sampler in reversed(samplers) if sampler != plain), plain)
    return Objectives(dict(zip(names, rows, strict=True)), dict(zip(names, losses, strict=True)), sizes.pop(), chosen)


def _batch_sampler(data: Any) -> RowSampling:
    """Return the sampler that makes the batches which a loader of rows would make."""
    from ..datasets import NoDuplicatesDataLoader, SentenceLabelDataset

    if isinstance(data, NoDuplicatesDataLoader):
        return "no_duplicates"
    return "group_by_label" if isinstance(getattr(data, "dataset", None), SentenceLabelDataset) else "batch_sampler"


def _rows(data: Any, *, keep_order: bool) -> Any:
    """Take the rows out of a DataLoader; training shuffles them again.

    It is iterated once, as in the reference, so its sampler decides which rows there are. With `keep_order`, for a
    replay, it draws from the global generator, which decides their order.
    """
    from ..data.loaders import ExampleLoader

    if not isinstance(data, (DataLoader, ExampleLoader)):
        return data
    collate, data.collate_fn = data.collate_fn, list
    if isinstance(data, DataLoader) and data.batch_size is None and data.batch_sampler is None:  # row by row
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
