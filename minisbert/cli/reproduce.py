"""`minisbert reproduce`: train again with the recipe of a model card, on other rows."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .evaluate import TASKS
from .options import Subparsers, add_command, add_device, table
from .settings import given_settings
from .train import Trained, add_loss_option, add_training_options, check_output, train_and_save

if TYPE_CHECKING:
    from ..card import CardFacts
    from ..evaluation import Evaluator
    from ..recipes import Recipe


def add(commands: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "reproduce",
        run,
        example="minisbert reproduce README.md --data pairs.tsv --scale 0-5 --output my-model",
        usage="minisbert reproduce CARD --data FILE --output DIR [options]",
    )
    parser.add_argument(
        "recipe", type=Path, metavar="CARD", help="model card (.md), folder with one, or recipe (.yaml)"
    )
    group = parser.add_argument_group("model and loss")
    group.add_argument("--model", help="model folder or name to start from (default: the card's)")
    add_loss_option(group)
    add_device(group)
    add_training_options(parser, instead_of="the card's")


def run(options: argparse.Namespace) -> None:
    """Train on new data with the recipe of a model card; save the model with its own card."""
    from ..recipes import prepare
    from ..recipes.recipe import read_source

    recipe, stated = read_source(options.recipe)
    evaluator = _evaluator(recipe, options)
    check_output(options)
    ready = prepare(
        recipe,
        options.data,
        output_dir=options.output,
        columns=options.columns,
        scale=options.scale,
        eval_data=options.eval_data,
        evaluator=evaluator,
        base_model=options.model,
        device=options.device,
        settings=given_settings(options),
        loss_options=dict(options.loss_option),
        show_progress_bar=not options.quiet,
    )
    for note in ready.notes:
        sys.stderr.write(f"{options.recipe.name}: {note}\n")
    trained = train_and_save(ready.model, ready.trainer, options, rows=ready.rows, held_out=ready.held_out)
    print(_comparison(recipe, stated, trained, rows=len(ready.rows)))
    history = trained.history
    sys.stderr.write(f"{history.steps} steps, {history.seconds:.0f} s; the model is in {options.output}\n")


def _evaluator(recipe: Recipe, options: argparse.Namespace) -> Evaluator | None:
    if options.eval is None:
        if options.eval_columns is not None:
            raise InputError("got --eval-columns without --eval; expected both: pass the file with these columns")
        return None
    kinds = {task.evaluator: task for task in TASKS.values()}
    kind = kinds.get(recipe.evaluator or "EmbeddingSimilarityEvaluator")
    if kind is None:
        raise InputError(f"got --eval and a card with {recipe.evaluator}; expected one of {', '.join(kinds)}")
    return kind.read(options.eval, options.eval_columns)[0]


def _comparison(recipe: Recipe, card: CardFacts | None, trained: Trained, *, rows: int) -> str:
    """Compare the results in the card with those before and after this run."""
    from ..recipes.reproduce import HELD_OUT
    from ..training.config import TrainingConfig

    evaluations = card.evaluations if card else ()
    stated = {metric.name: metric.values[0] for one in evaluations for metric in one.metrics if metric.values}
    steps = TrainingConfig(**recipe.settings).steps_over(recipe.rows) if recipe.rows else None
    shown = [
        ("", "card", "before", "after"),
        ("rows", _count(recipe.rows), "", _count(rows)),
        ("steps", _count(steps), "", _count(trained.history.steps)),
    ]
    for name, before in trained.before.items():
        metric = name.removeprefix(f"{HELD_OUT}_")
        if name in trained.after:
            shown.append((metric, _number(stated.get(metric)), _number(before), _number(trained.after[name])))
    return table(shown)


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _number(value: float | str | None) -> str:
    return f"{value:.4f}" if isinstance(value, (int, float)) and math.isfinite(value) else "-"
