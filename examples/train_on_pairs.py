"""Fine-tune on scored pairs, evaluate before and after, and save the model with its card.

python examples/train_on_pairs.py --epochs 4 --output my-model
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.data.packaged import GRADED_ANSWERS_HELDOUT, GRADED_ANSWERS_TRAIN
from minisbert.evaluation import EmbeddingSimilarityEvaluator

COLUMNS = ("reference", "answer", "score")  # how close a student's answer is to the reference answer


def heldout_evaluator() -> EmbeddingSimilarityEvaluator:
    """Return an evaluator over the graded answers that are not trained on."""
    with GRADED_ANSWERS_HELDOUT.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    first, second, scores = ([row[name] for row in rows] for name in COLUMNS)
    return EmbeddingSimilarityEvaluator(first, second, [float(score) for score in scores])


def main() -> None:
    """Train on the packaged graded answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--steps", type=int, help="stop after this many steps")
    parser.add_argument("--output", type=Path, default=Path("my-model"))
    options = parser.parse_args()

    model = SentenceTransformer("all-MiniLM-L6-v2")
    evaluator = heldout_evaluator()
    config = TrainingConfig(
        epochs=options.epochs,
        batch_size=16,
        learning_rate=5e-5,
        warmup_steps=0.1,  # a share of all steps
        max_steps=options.steps,
    )
    trainer = Trainer(
        model,
        GRADED_ANSWERS_TRAIN,
        loss=losses.CosineSimilarityLoss(),
        config=config,
        columns=COLUMNS,
        scale=(0, 5),  # the grades that stand for cosine similarities 0 and 1
    )
    before = evaluator(model)["spearman_cosine"]
    history = trainer.train()
    after = evaluator(model)["spearman_cosine"]
    model.save_pretrained(options.output)
    print(f"{history.steps} steps; Spearman {before:.4f} before, {after:.4f} after; the model is in {options.output}")


if __name__ == "__main__":
    main()
