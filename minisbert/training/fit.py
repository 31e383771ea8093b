"""The old `fit`: the reference's arguments, over the same loop."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch.utils.data import DataLoader

from ..data.roles import TrainingRows, training_rows
from ..errors import ConfigError
from ..evaluation import Evaluator
from ..losses import Loss
from ..model import EmbeddingModel
from .config import ReplayVersion, TrainingConfig
from .history import LogEntry, TrainingHistory
from .replay import FitReplay
from .trainer import Trainer

Callback: TypeAlias = Callable[[float, float, int], None]


class FitTrainer(Trainer):
    """A Trainer whose replay is that of `fit`."""

    replay = FitReplay


def fit(
    model: EmbeddingModel,
    train_objectives: Sequence[tuple[Any, Loss]],
    *,
    evaluator: Evaluator | None,
    epochs: int,
    steps_per_epoch: int | None,
    scheduler: str,
    warmup_steps: int,
    optimizer_params: Mapping[str, float] | None,
    weight_decay: float,
    evaluation_steps: int,
    output_path: str | Path | None,
    save_best_model: bool,
    max_grad_norm: float,
    use_amp: bool,
    callback: Callback | None,
    show_progress_bar: bool,
    checkpoint_path: str | Path | None,
    checkpoint_save_steps: int,
    checkpoint_save_total_limit: int,
    resume_from_checkpoint: bool,
    replay: ReplayVersion | None,
) -> TrainingHistory:
    """Train as `SentenceTransformer.fit` describes."""
    if scheduler != "WarmupLinear":
        raise ConfigError(f"got scheduler {scheduler!r}; expected 'WarmupLinear'")
    if unknown := sorted(set(optimizer_params or {}) - {"lr"}):
        raise ConfigError(f"got optimizer_params {unknown}; expected only 'lr'")
    if replay is not None and steps_per_epoch and epochs > 1:
        raise ConfigError(
            f"got steps_per_epoch={steps_per_epoch} with replay={replay!r} and epochs={epochs}; expected no "
            f"steps_per_epoch, which the reference ignores over several epochs: leave it out"
        )
    rows, losses, batch_size = _read_objectives(train_objectives, keep_order=replay is not None)
    # An epoch takes every batch of the smallest data set, and as many of the others.
    batches = min(math.ceil(len(part) / batch_size) for part in rows.values()) * len(rows)
    steps = (steps_per_epoch or batches) * epochs
    if warmup_steps >= steps:
        warnings.warn(
            f"warmup_steps={warmup_steps} is not below the {steps} steps of this run: the learning rate never reaches "
            f"its full value; a tenth of the steps is a usual choice",
            stacklevel=3,
        )
    config = TrainingConfig(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=(optimizer_params or {}).get("lr", 2e-5),
        warmup_steps=warmup_steps,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        precision="fp16" if use_amp else "fp32",
        max_steps=steps if steps_per_epoch else None,
        multi_dataset_batch_sampler="round_robin",
        eval_every=evaluation_steps or steps_per_epoch,
        eval_each_epoch=not steps_per_epoch,
        save_every=checkpoint_save_steps if checkpoint_path else None,
        save_total_limit=checkpoint_save_total_limit or None,
        keep_best=evaluator is not None and save_best_model and output_path is not None,
        replay=replay,
    )

    def report(entry: LogEntry) -> None:
        if callback is not None and evaluator is not None and (name := f"eval_{evaluator.primary_metric}") in entry:
            callback(entry[name], entry["epoch"], int(entry["step"]))

    trainer = FitTrainer(
        model,
        rows,
        loss=losses,
        config=config,
        evaluator=evaluator,
        output_dir=checkpoint_path or output_path,
        on_log=report,
        show_progress_bar=show_progress_bar,
    )
    history = trainer.train(resume=resume_from_checkpoint)
    if output_path is not None:
        model.save_pretrained(output_path)
    return history


def _read_objectives(
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
        with nullcontext() if keep_order else torch.random.fork_rng(devices=[]):
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
