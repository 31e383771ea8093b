"""Train so that the first dimensions of an embedding work alone, and measure how much each length keeps.

python examples/train_matryoshka.py --output my-matryoshka
"""

from __future__ import annotations

import argparse
from pathlib import Path

from train_on_pairs import COLUMNS, heldout_evaluator

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.data.packaged import GRADED_ANSWERS_TRAIN

DIMENSIONS = [384, 128, 32]


def scores(model: SentenceTransformer) -> dict[int, float]:
    """Return the Spearman correlation with the graders by number of dimensions."""
    evaluator, found = heldout_evaluator(), {}
    for dimension in DIMENSIONS:
        with model.truncate_embeddings(dimension):
            found[dimension] = evaluator(model)["spearman_cosine"]
    return found


def main() -> None:
    """Train with the loss over several lengths at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="stop after this many steps")
    parser.add_argument("--output", type=Path, default=Path("my-matryoshka"))
    options = parser.parse_args()

    model = SentenceTransformer("all-MiniLM-L6-v2")
    before = scores(model)
    loss = losses.MatryoshkaLoss(model, losses.CosineSimilarityLoss(model), matryoshka_dims=DIMENSIONS)
    config = TrainingConfig(epochs=4, batch_size=16, learning_rate=5e-5, warmup_steps=0.1, max_steps=options.steps)
    Trainer(model, GRADED_ANSWERS_TRAIN, loss=loss, config=config, columns=COLUMNS, scale=(0, 5)).train()
    model.save_pretrained(options.output)

    # Expect all lengths to gain, and the short ones to come closer to the full one.
    for dimension, after in scores(model).items():
        print(f"{dimension:4d} dimensions: Spearman {before[dimension]:.4f} before, {after:.4f} after")


if __name__ == "__main__":
    main()
