"""`minisbert reproduce`: follow the recipe of a model card on other rows."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .evaluators import KINDS
from .options import Subparsers, add_command, check_writable, column_names, table
from .settings import add_run_options, add_settings, given_settings

if TYPE_CHECKING:
    from ..card import CardFacts
    from ..evaluation import Evaluator
    from ..recipes import Recipe

_EVALUATORS = {
    "EmbeddingSimilarityEvaluator": "sts",
    "InformationRetrievalEvaluator": "retrieval",
    "TripletEvaluator": "triplets",
    "BinaryClassificationEvaluator": "binary",
    "ParaphraseMiningEvaluator": "paraphrases",
    "RerankingEvaluator": "reranking",
}


def add(commands: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "reproduce",
        run,
        about="Read a model card (or a recipe), train on this data as it says, save the model and write its card.",
        example="minisbert reproduce README.md --data pairs.tsv --scale 0-5 --output my-model",
    )
    parser.add_argument(
        "recipe", type=Path, metavar="CARD", help="model card (.md), folder with one, or recipe (.yaml)"
    )
    parser.add_argument(
        "--eval",
        type=Path,
        metavar="PATH",
        help="what to evaluate on, as the card's evaluator reads it (default, where the card has scored pairs "
        "evaluated: a tenth of the rows, held out)",
    )
    parser.add_argument("--eval-columns", type=column_names, help="the columns of that file to use")
    parser.add_argument("--model", help="model folder or name to start from (default: the card's)")
    add_run_options(parser)
    add_settings(parser, instead_of="the card's")


def run(options: argparse.Namespace) -> None:
    """Do it."""
    from ..recipes import prepare, read_recipe
    from ..report import RunReport, require_matplotlib

    if options.report:
        require_matplotlib()
    recipe = read_recipe(options.recipe)
    stated = _stated(options.recipe)  # before the run, which may write its own card in the place of this one
    evaluator = _evaluator(recipe, options)
    check_writable(options.output)
    ready = prepare(
        recipe,
        options.data,
        output_dir=options.output,
        columns=options.columns,
        scale=options.scale,
        evaluator=evaluator,
        base_model=options.model,
        device=options.device,
        settings=given_settings(options),
    )
    for note in ready.notes:
        sys.stderr.write(f"{options.recipe.name}: {note}\n")
    trainer = ready.trainer
    evaluator = trainer.evaluator
    before = evaluator(trainer.model) if evaluator is not None else {}
    report = RunReport(trainer.model, ready.held_out or ready.rows, metrics=before) if options.report else None
    history = trainer.train(resume=options.resume)
    trainer.model.save_pretrained(options.output)
    if report is not None:
        report.write(options.output, history, primary=evaluator.primary_metric if evaluator else None)
    after = trainer.model.training_facts.metrics if trainer.model.training_facts is not None else {}
    print(_comparison(recipe, stated, before, after, rows=len(ready.rows), loss=history.train_loss))
    sys.stderr.write(f"{history.steps} steps, {history.seconds:.0f} s; the model is in {options.output}\n")


def _evaluator(recipe: Recipe, options: argparse.Namespace) -> Evaluator | None:
    if options.eval is None:
        if options.eval_columns is not None:
            raise InputError("got --eval-columns and no --eval; expected the file they are columns of: pass it")
        return None
    kind = _EVALUATORS.get(recipe.evaluator or "EmbeddingSimilarityEvaluator")
    if kind is None:
        raise InputError(f"got --eval and a card with {recipe.evaluator}; expected one of {', '.join(_EVALUATORS)}")
    reading = argparse.Namespace(columns=options.eval_columns, split=None, no_titles=False)
    return KINDS[kind][0](options.eval, reading)[0]


def _stated(path: Path) -> CardFacts | None:
    """The facts of the card the recipe was read from, if it was one."""
    from ..card.reading import read_card

    file = path / "README.md" if path.is_dir() else path
    return None if file.suffix.lower() in (".yaml", ".yml") else read_card(file)


def _comparison(
    recipe: Recipe,
    card: CardFacts | None,
    before: Mapping[str, float],
    after: Mapping[str, float],
    *,
    rows: int,
    loss: float,
) -> str:
    """What the card states beside what this run found."""
    evaluations = card.evaluations if card else ()
    stated = {metric.name: metric.values[0] for one in evaluations for metric in one.metrics if metric.values}
    shown = [("", "card", "before", "after"), ("rows", f"{recipe.rows:,}" if recipe.rows else "-", "-", f"{rows:,}")]
    shown.append(("mean loss", _mean_loss(card), "-", f"{loss:.4f}"))
    shown += [
        (name, _number(stated.get(name)), _number(before[name]), _number(after[name]))
        for name in before
        if name in after
    ]
    return table(shown)


def _mean_loss(card: CardFacts | None) -> str:
    """Over the logged stretches of the card's run, which are equally long."""
    if card is None or card.logs is None or "Training Loss" not in card.logs.columns:
        return "-"
    losses = [loss for loss in card.logs.values("Training Loss") if loss is not None]
    return _number(sum(losses) / len(losses)) if losses else "-"


def _number(value: float | str | None) -> str:
    return f"{value:.4f}" if isinstance(value, (int, float)) and math.isfinite(value) else "-"
