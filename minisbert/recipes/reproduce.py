"""A recipe and rows to a model that is ready to be trained as the recipe says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data.roles import TrainingRows, training_rows
from ..data.rows import as_table
from ..errors import ConfigError, InputError, warn
from ..evaluation import EmbeddingSimilarityEvaluator, Evaluator
from ..losses import loss_by_name, loss_class, needs_model, with_classes
from ..modules import Normalize, Pooling
from ..sentence_transformer import SentenceTransformer
from ..training.config import TrainingConfig
from ..training.objectives import FitTrainer
from ..training.trainer import Trainer
from .recipe import Recipe

FIT_LEARNING_RATE, FIT_WEIGHT_DECAY, FIT_WARMUP = 2e-5, 0.01, 10_000
HELD_OUT = "held-out"  # name of the evaluation on rows that were kept from training
_HELD_OUT_SHARE, _HELD_OUT_MOST = 0.1, 1000  # of the rows


@dataclass(frozen=True)
class Reproduction:
    """A run that is ready to start.

    Attributes:
        model: the model to train.
        trainer: the run.
        rows: the rows it trains on.
        held_out: rows that were kept from training to evaluate on, or None.
        notes: decisions that the recipe does not make, a sentence each.
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
    eval_data: Any = None,
    evaluator: Evaluator | None = None,
    base_model: str | Path | None = None,
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
    loss_options: Mapping[str, Any] | None = None,
    show_progress_bar: bool = True,
) -> Reproduction:
    """Make the model, the loss and the settings of a recipe, to train on other rows.

    If the recipe has an evaluator and none is passed, a tenth of scored pairs (at most 1,000) is held out for it.
    Cards of `fit` do not state learning rate, decay and warm-up: the defaults of `fit` are used, with a warm-up of at
    most a tenth of the steps.

    Args:
        recipe: the recipe to follow.
        data: rows as `Trainer` takes them.
        output_dir: folder for log, evaluations and checkpoints.
        columns: the columns to use, in order.
        scale: the labels that stand for 0 and 1.
        eval_data: rows to compute the loss on, as often as the recipe did.
        evaluator: called as often as the recipe's was.
        base_model: start from this model instead of the recipe's.
        device: where to train.
        settings: fields of `TrainingConfig` that override the recipe's.
        loss_options: parameters of the loss that override the recipe's; a guide, of which cards state no more than a
            description, is a model or its folder or name.
        show_progress_bar: show one on a terminal.

    Raises:
        InputError: the rows do not have the texts or the label that the recipe needs.
        ConfigError: the recipe needs something that minisbert does not support.
    """
    recipe = replace(recipe, loss_parameters=_loss_parameters(recipe, loss_options or {}, device=device))
    needs = needs_model(recipe.loss, recipe.loss_parameters)
    loss = None if needs else loss_by_name(recipe.loss, recipe.loss_parameters)
    kind = (loss or loss_class(recipe.loss)).label_kind
    rows = _rows(recipe, data, columns, scale, classes=kind == "class")
    if loss is not None:  # before a model is loaded
        loss.check_rows(tuple(rows.texts), rows.labels)
    parameters = with_classes(recipe.loss, recipe.loss_parameters, rows.scores)  # cards before version 6 lack them
    if recipe.not_followed:
        warn(f"these settings of the recipe are not supported and ignored: {', '.join(recipe.not_followed)}")
    notes: list[str] = []
    held_out = None
    if recipe.evaluator is not None and evaluator is None:
        scored_pairs = rows.scores is not None and len(rows.texts) == 2
        if recipe.evaluator == EmbeddingSimilarityEvaluator.__name__ and scored_pairs:
            seed = TrainingConfig(seed=recipe.settings.get("seed", TrainingConfig.seed)).seed
            rows, held_out = _split(rows, seed=seed)
            first, second = held_out.texts.values()
            evaluator = EmbeddingSimilarityEvaluator(first, second, held_out.scores or [], name=HELD_OUT)
            notes.append(f"{len(held_out):,} rows are held out for evaluation")
        else:
            notes.append(f"the recipe's {recipe.evaluator} is left out: there is no data for it")
    model = starting_model(recipe, base_model=base_model, device=device)
    loss = loss or loss_by_name(recipe.loss, parameters, model=model)
    held_out_rows = None if eval_data is None else _rows(recipe, eval_data, columns, scale, classes=kind == "class")
    evaluated = evaluator is not None or held_out_rows is not None
    config = _config(recipe, rows, model.device, notes, given=settings or {}, evaluated=evaluated)
    if output_dir is None and config.keep_best:
        config = replace(config, keep_best=False)
    of_fit = recipe.trained_with == "fit"
    trainer = (FitTrainer if of_fit else Trainer)(
        model,
        {"_dataset_1": rows} if of_fit else rows,
        loss=loss,
        config=config,
        eval_data=held_out_rows,
        evaluator=evaluator,
        output_dir=output_dir,
        show_progress_bar=show_progress_bar,
    )
    return Reproduction(model, trainer, rows, held_out, tuple(notes))


def _loss_parameters(recipe: Recipe, given: Mapping[str, Any], *, device: str | None) -> dict[str, Any]:
    """The parameters of the loss, with those that are given in place of the recipe's, and the guide as a model."""
    parameters = {**recipe.loss_parameters, **given}
    guide = parameters.get("guide")
    if isinstance(guide, str) and "guide" not in given:
        raise ConfigError(
            f"the recipe's {recipe.loss} has a guide, of which it states {guide!r}; expected a model: pass it in "
            f"loss_options, or with --loss-option guide=MODEL"
        )
    if isinstance(guide, (str, Path)):
        parameters["guide"] = SentenceTransformer(guide, device=device)
    return parameters


# ---- the model ------------------------------------------------------------------------------------------------------


def starting_model(
    recipe: Recipe, *, base_model: str | Path | None = None, device: str | None = None
) -> SentenceTransformer:
    """The recipe's base model with the recipe's modules, maximum length and similarity.

    Raises:
        ModelError: the base model cannot be found or read.
        ConfigError: the recipe has modules with weights that the base model does not have.
    """
    name, revision = (base_model, None) if base_model else (recipe.base_model, recipe.base_model_revision)
    if name is None:
        raise ConfigError("got a recipe without a base model; expected one: say which with base_model= or --model")
    base = model = SentenceTransformer(name, revision=revision, device=device, dtype="float32")
    modules = _modules(recipe, base)
    if modules != list(base):
        model = SentenceTransformer(
            modules=modules, device=device, prompts=base.prompts, default_prompt_name=base.default_prompt_name
        )
        model.base_model, model.base_model_revision = base.base_model, base.base_model_revision
    model.similarity_fn_name = recipe.similarity
    if recipe.max_seq_length is not None:
        model.max_seq_length = recipe.max_seq_length
    return model


def _modules(recipe: Recipe, base: SentenceTransformer) -> list[nn.Module]:
    """The base model's modules, with Pooling and Normalize as in the recipe."""
    got = f"got a recipe with the modules {list(recipe.modules)}"
    if recipe.modules[:1] != ("Transformer",) or recipe.modules.count("Transformer") > 1:
        raise ConfigError(f"{got}; expected one Transformer, first")
    if "Pooling" not in recipe.modules:
        raise ConfigError(f"{got}; expected Pooling among them")
    own: dict[str, list[nn.Module]] = {}
    for module in base:
        own.setdefault(type(module).__name__, []).append(module)
    modules: list[nn.Module] = []
    for kind in recipe.modules:
        found = own[kind].pop(0) if own.get(kind) else None
        if kind == "Pooling" and not (isinstance(found, Pooling) and found.pooling_mode == recipe.pooling_mode):
            found = Pooling(base.transformer.embedding_dimension, recipe.pooling_mode)
        elif kind == "Normalize" and found is None:
            found = Normalize()
        if found is None:
            expected = ", ".join(dict.fromkeys([*own, "Pooling", "Normalize"]))
            raise ConfigError(
                f"got a recipe with the module {kind}; expected one of {expected}, as often as the base model: start "
                f"from a base model that has it"
            )
        modules.append(found)
    return modules


# ---- the settings ---------------------------------------------------------------------------------------------------


def _config(
    recipe: Recipe,
    rows: TrainingRows,
    device: torch.device,
    notes: list[str],
    *,
    given: Mapping[str, Any],
    evaluated: bool,
) -> TrainingConfig:
    """The settings of the run; decisions are added to `notes`."""
    known = {field.name for field in fields(TrainingConfig)}
    unknown = [name for name in (*recipe.settings, *given) if name not in known]
    if unknown:
        raise ConfigError(f"got the setting {unknown[0]!r}; expected one of {', '.join(sorted(known))}")
    settings = {**recipe.settings, **given}
    if "prompts" in recipe.settings and "prompts" not in given:
        settings["prompts"] = _renamed(recipe.settings["prompts"], recipe.texts, tuple(rows.texts))
    if not evaluated:
        for name in ("eval_every", "keep_best", "early_stopping_patience", "early_stopping_threshold"):
            if name not in given:
                settings.pop(name, None)
    if settings.get("precision") == "fp16" and "precision" not in given and device.type == "cpu":
        settings["precision"] = "fp32"
        notes.append("fp16 needs a GPU: on the CPU the model is trained in fp32, as the reference does")
    if recipe.trained_with == "fit":
        settings = {
            "multi_dataset_batch_sampler": "round_robin",
            "eval_each_epoch": evaluated,
            "keep_best": evaluated,
            **settings,
        }
        _add_unstated(settings, len(rows), notes)
    return TrainingConfig(**settings)


def _renamed(prompts: Any, before: Sequence[str], now: Sequence[str]) -> Any:
    """The prompts of the recipe's columns for those of other rows, which may have other names."""
    if not isinstance(prompts, Mapping):
        return prompts
    names = dict(zip(before, now, strict=False))
    return {names.get(name, name): prompt for name, prompt in prompts.items()}


def _add_unstated(settings: dict[str, Any], rows: int, notes: list[str]) -> None:
    """Add the defaults of the reference's `fit`, whose cards do not state these settings."""
    assumed = []
    for name, value in {"learning_rate": FIT_LEARNING_RATE, "weight_decay": FIT_WEIGHT_DECAY}.items():
        if name not in settings:
            settings[name] = value
            assumed.append(f"{name}={value:g}")
    if "warmup_steps" not in settings:
        steps = TrainingConfig(**settings).steps_over(rows)
        settings["warmup_steps"] = min(FIT_WARMUP, math.ceil(steps / 10))
        shorter = " (a tenth of the run)" if settings["warmup_steps"] < FIT_WARMUP else ""
        assumed.append(f"warmup_steps={settings['warmup_steps']}{shorter}")
    if assumed:
        notes.append(f"the cards of the reference's fit do not state these settings; assumed: {', '.join(assumed)}")


# ---- the rows -------------------------------------------------------------------------------------------------------


def _rows(
    recipe: Recipe,
    data: Any,
    columns: Sequence[str] | None,
    scale: tuple[float, float] | None,
    *,
    classes: bool,
) -> TrainingRows:
    table = as_table(data, columns)
    # Naming every column says that a last one that spells numbers is a label.
    rows = training_rows(table, columns=columns or list(table.columns), scale=scale, classes=classes)
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
    count = min(_HELD_OUT_MOST, int(len(rows) * _HELD_OUT_SHARE))
    if count < 2:
        raise InputError(
            f"got {len(rows)} rows; expected at least {math.ceil(2 / _HELD_OUT_SHARE)} to hold some out for the "
            f"recipe's evaluation: add rows, or pass data to evaluate on"
        )
    chosen = set(np.random.default_rng(seed).choice(len(rows), count, replace=False).tolist())
    kept = [row for row in range(len(rows)) if row not in chosen]
    return rows.subset(kept), rows.subset(sorted(chosen))
