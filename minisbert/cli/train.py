"""`minisbert train`: fine-tune a model on a data file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import InputError
from .evaluate import sts_evaluator
from .options import (
    Subparsers,
    add_command,
    add_run_options,
    add_settings,
    before_and_after,
    check_output,
    column_names,
    given_settings,
    load_model,
    log_often,
)

_LOSSES = {"cosine": "CosineSimilarityLoss", "mnrl": "MultipleNegativesRankingLoss"}


def add(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "train",
        run,
        example="minisbert train --model all-MiniLM-L6-v2 --data pairs.tsv --loss cosine --scale 0-5 --epochs 1 "
        "--batch-size 16 --output my-model",
    )
    parser.add_argument("--model", required=True, help="model folder or name to start from")
    losses = "; ".join(f"{name}: {loss}" for name, loss in _LOSSES.items())
    parser.add_argument("--loss", required=True, choices=_LOSSES, help=losses)
    parser.add_argument("--eval", type=Path, metavar="FILE", help="scored pairs to evaluate on, before and after")
    parser.add_argument(
        "--eval-columns",
        type=column_names,
        metavar="NAMES",
        help="columns of that file to use, such as text,text,score",
    )
    parser.add_argument(
        "--max-seq-length", type=int, metavar="TOKENS", help="truncate longer texts (default: the model's)"
    )
    add_run_options(parser)
    add_settings(parser)


def run(options: argparse.Namespace) -> None:
    """Fine-tune a model on pairs of texts and save it."""
    from .. import losses
    from ..data.roles import training_rows
    from ..report import RunReport, require_matplotlib
    from ..training.config import TrainingConfig
    from ..training.trainer import Trainer

    if options.report:
        require_matplotlib()
    config = TrainingConfig(**given_settings(options))
    loss: losses.Loss = getattr(losses, _LOSSES[options.loss])()
    rows = training_rows(options.data, columns=options.columns, scale=options.scale)
    loss.check_rows(tuple(rows.texts), rows.labels)
    if len(rows) < 2:
        raise InputError(f"{options.data} holds {len(rows)} row; expected at least two to train on: add rows")
    if options.report:
        config = log_often(config, rows=len(rows))
    evaluator = sts_evaluator(options.eval, options.eval_columns) if options.eval else None
    check_output(options.output, resume=options.resume)
    model = load_model(options, options.model)
    if options.max_seq_length is not None:
        model.max_seq_length = options.max_seq_length
    before = evaluator(model) if evaluator else {}
    report = None
    if options.report:
        shown = training_rows(options.eval, columns=options.eval_columns) if options.eval else rows
        report = RunReport(model, shown, metrics=before, role="evaluation" if options.eval else "training")
    trainer = Trainer(model, rows, loss=loss, config=config, evaluator=evaluator, output_dir=options.output)
    history = trainer.train(resume=options.resume)
    model.save_pretrained(options.output)
    if report is not None:
        report.write(options.output, history, primary=evaluator.primary_metric if evaluator else None)
    if before and model.training_record is not None:
        print(before_and_after(before, model.training_record.metrics))  # the metrics of the weights that are kept
    sys.stderr.write(
        f"{history.steps} steps, mean loss {history.train_loss:.4f}, {history.seconds:.0f} s; the model is in "
        f"{options.output}\n"
    )
