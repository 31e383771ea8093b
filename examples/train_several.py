"""Train on several data sets at once, each with its own loss: graded pairs, and questions with their answers.

python examples/train_several.py --output my-model
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mine_and_train import pairs
from train_on_pairs import COLUMNS, heldout_evaluator

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.data.packaged import GRADED_ANSWERS_TRAIN
from minisbert.data.roles import training_rows


def main() -> None:
    """Train on both data sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="stop after this many steps")
    parser.add_argument("--output", type=Path, default=Path("my-model-of-several"))
    options = parser.parse_args()

    model = SentenceTransformer("all-MiniLM-L6-v2")
    evaluator = heldout_evaluator()
    before = evaluator(model)["spearman_cosine"]
    data = {
        "graded": training_rows(GRADED_ANSWERS_TRAIN, columns=COLUMNS, scale=(0, 5)),
        "answers": pairs(GRADED_ANSWERS_TRAIN),  # no labels: the other answers of a batch are negatives
    }
    loss = {
        "graded": losses.CoSENTLoss(),
        "answers": losses.MultipleNegativesRankingLoss(),
    }
    config = TrainingConfig(
        epochs=4,
        batch_size=6,
        learning_rate=5e-5,
        warmup_steps=0.1,
        max_steps=options.steps,
        batch_sampler="no_duplicates",  # no answer is its own negative
        multi_dataset_batch_sampler="proportional",  # each data set as often as it has batches
    )
    Trainer(model, data, loss=loss, config=config).train()
    model.save_pretrained(options.output)

    # Expect a gain on the graded answers, as from the first data set alone; the second keeps the model a retriever.
    after = evaluator(model)["spearman_cosine"]
    print(f"Spearman {before:.4f} before, {after:.4f} after; the model is in {options.output}")


if __name__ == "__main__":
    main()
