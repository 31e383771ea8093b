"""A recipe and rows to a model ready to train as the recipe says."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.roles import TrainingRows, training_rows
from ..data.rows import as_table
from ..errors import ConfigError, InputError
from ..evaluation import EmbeddingSimilarityEvaluator, Evaluator
from ..losses.by_name import loss_by_name
from ..sentence_transformer import SentenceTransformer
from ..training.config import TrainingConfig
from ..training.objectives import FitTrainer
from ..training.trainer import Trainer
from .recipe import Recipe
from .starting import starting_model

FIT_LEARNING_RATE, FIT_WEIGHT_DECAY, FIT_WARMUP = 2e-5, 0.01, 10_000
HELD_OUT = "held-out"  # name of the evaluation on rows that were kept from training
_SHARE, _MOST = 0.1, 1000  # of the rows that are held out


@dataclass(frozen=True)
class Reproduction:
    """A run that is ready to go.

    Attributes:
        model: what it trains.
        trainer: the run.
        rows: what it trains on.
        held_out: rows that were kept from it to evaluate on, or None.
        notes: what was decided that the recipe does not say, a sentence each.
    """

    model: SentenceTransformer
    trainer: Trainer
    rows: TrainingRows
    held_out: TrainingRows | None
    notes: tuple[str, ...]


def prepare(
    recipe: Recipe,
    data: Any,
    *,
    output_dir: str | Path | None = None,
    columns: Sequence[str] | None = None,
    scale: tuple[float, float] | None = None,
    evaluator: Evaluator | None = None,
    base_model: str | Path | None = None,
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
    show_progress_bar: bool = True,
) -> Reproduction:
    """Make the model, the loss and the settings of a recipe, to train on other rows.

    Where the recipe has an evaluator and none is given, a tenth of scored pairs (at most 1,000) is held out for it.
    Cards of `fit` do not state learning rate, decay and warm-up: then those are its own defaults, with a warm-up of at
    most a tenth of the steps.

    Args:
        recipe: what to follow.
        data: rows as `Trainer` takes them.
        output_dir: where the run keeps its log, evaluations and checkpoints.
        columns: the columns to use, in order.
        scale: the labels that stand for 0 and 1.
        evaluator: evaluates as often as the recipe's did.
        base_model: start from this model instead of the recipe's.
        device: where to train.
        settings: fields of `TrainingConfig` that override the recipe's.
        show_progress_bar: show one on a terminal.

    Raises:
        InputError: the rows do not have the texts or the label that the recipe needs.
        ConfigError: the recipe needs what minisbert does not have.
    """
    loss = loss_by_name(recipe.loss, recipe.loss_parameters)
    rows = _rows(recipe, data, columns, scale)
    loss.check_rows(tuple(rows.texts), rows.labels)
    notes: list[str] = []
    if recipe.not_followed:
        warnings.warn(f"not followed, for want of a match: {', '.join(recipe.not_followed)}", stacklevel=2)
    held_out = None
    if recipe.evaluator is not None and evaluator is None:
        scored_pairs = rows.labels is not None and len(rows.texts) == 2
        if recipe.evaluator == EmbeddingSimilarityEvaluator.__name__ and scored_pairs:
            rows, held_out = _split(
                rows, seed=TrainingConfig(seed=recipe.settings.get("seed", TrainingConfig.seed)).seed
            )
            first, second = held_out.texts.values()
            evaluator = EmbeddingSimilarityEvaluator(first, second, held_out.labels or [], name=HELD_OUT)
            notes.append(f"{len(held_out):,} rows are held out to evaluate on")
        else:
            notes.append(f"without data for it, the recipe's {recipe.evaluator} is left out")
    model = starting_model(recipe, base_model=base_model, device=device)
    config = _config(recipe, len(rows), model.device, notes, given=settings or {}, evaluated=evaluator is not None)
    if output_dir is None and config.keep_best:
        config = replace(config, keep_best=False)
    of_fit = recipe.trained_with == "fit"
    make: Callable[..., Trainer] = FitTrainer if of_fit else Trainer
    trainer = make(
        model,
        {"_dataset_1": rows} if of_fit else rows,
        loss={"_dataset_1": loss} if of_fit else loss,
        config=config,
        evaluator=evaluator,
        output_dir=output_dir,
        show_progress_bar=show_progress_bar,
    )
    return Reproduction(model, trainer, rows, held_out, tuple(notes))


def _config(
    recipe: Recipe, rows: int, device: torch.device, notes: list[str], *, given: Mapping[str, Any], evaluated: bool
) -> TrainingConfig:
    """The settings of the run; what is decided here is told in `notes`."""
    known = {place.name for place in fields(TrainingConfig)}
    unknown = [name for name in (*recipe.settings, *given) if name not in known]
    if unknown:
        raise ConfigError(f"got the setting {unknown[0]!r}; expected one of {', '.join(sorted(known))}")
    settings = {**recipe.settings, **given}
    if not evaluated:
        settings.pop("eval_every", None)
        settings.pop("keep_best", None)
    if settings.get("precision") == "fp16" and "precision" not in given and device.type == "cpu":
        settings["precision"] = "fp32"
        notes.append("fp16 is for a GPU: on the CPU it trains in fp32, as the reference does")
    if recipe.trained_with == "fit":
        settings = {**_ways_of_fit(evaluated=evaluated), **settings}
        _add_unstated(settings, rows, notes)
    return TrainingConfig(**settings)


def _ways_of_fit(*, evaluated: bool) -> dict[str, Any]:
    return {"multi_dataset_batch_sampler": "round_robin", "eval_each_epoch": evaluated, "keep_best": evaluated}


def _add_unstated(settings: dict[str, Any], rows: int, notes: list[str]) -> None:
    """What `fit` does unless it is told otherwise, where nobody says what it was told."""
    assumed = []
    if "learning_rate" not in settings:
        settings["learning_rate"] = FIT_LEARNING_RATE
        assumed.append(f"learning_rate={FIT_LEARNING_RATE:g}")
    if "weight_decay" not in settings:
        settings["weight_decay"] = FIT_WEIGHT_DECAY
        assumed.append(f"weight_decay={FIT_WEIGHT_DECAY:g}")
    if "warmup_steps" not in settings:
        steps = TrainingConfig(**settings).steps_over(rows)
        settings["warmup_steps"] = min(FIT_WARMUP, math.ceil(steps / 10))
        shorter = " (a tenth of the run)" if settings["warmup_steps"] < FIT_WARMUP else ""
        assumed.append(f"warmup_steps={settings['warmup_steps']}{shorter}")
    if assumed:
        notes.append(f"the reference's fit does not write these into its cards; assumed: {', '.join(assumed)}")


def _rows(recipe: Recipe, data: Any, columns: Sequence[str] | None, scale: tuple[float, float] | None) -> TrainingRows:
    table = as_table(data)
    # To name every column is to say that a last one that spells numbers is a label.
    rows = training_rows(table, columns=columns or list(table.columns), scale=scale)
    if recipe.texts and len(rows.texts) != len(recipe.texts):
        raise InputError(
            f"{rows.source} has the text columns {list(rows.texts)}; the recipe has {len(recipe.texts)}, "
            f"{list(recipe.texts)}: name the columns to use, in this order, and then the label if there is one"
        )
    if len(rows) < 2:
        raise InputError(f"{rows.source} holds {len(rows)} row; expected at least two to train on: add rows")
    return rows


def _split(rows: TrainingRows, *, seed: int) -> tuple[TrainingRows, TrainingRows]:
    """Rows to train on and rows to evaluate on, each in its order."""
    count = min(_MOST, int(len(rows) * _SHARE))
    if count < 2:
        raise InputError(
            f"got {len(rows)} rows; expected at least {math.ceil(2 / _SHARE)} to hold some out for the recipe's "
            f"evaluation: add rows, or give it data of its own"
        )
    chosen = set(np.random.default_rng(seed).choice(len(rows), count, replace=False).tolist())
    kept = [row for row in range(len(rows)) if row not in chosen]
    return rows.subset(kept), rows.subset(sorted(chosen))
