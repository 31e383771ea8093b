"""Train with batches larger than memory: the gradient cache embeds a batch in mini-batches, twice each.

python examples/train_large_batch.py --batch-size 256 --output my-model
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mine_and_train import pairs
from train_on_pairs import heldout_evaluator

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.data.packaged import GRADED_ANSWERS_TRAIN


def main() -> None:
    """Train with the other answers of a large batch as negatives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--mini-batch-tokens", type=int, default=4096, help="tokens that are embedded at a time")
    parser.add_argument("--steps", type=int, help="stop after this many steps")
    parser.add_argument("--output", type=Path, default=Path("my-model-of-large-batches"))
    options = parser.parse_args()

    model = SentenceTransformer("all-MiniLM-L6-v2")
    evaluator = heldout_evaluator()
    before = evaluator(model)["spearman_cosine"]
    data = pairs(GRADED_ANSWERS_TRAIN)

    # Memory follows from the tokens of a mini-batch, not from the batch: raise the batch size as far as there is time.
    loss = losses.CachedMultipleNegativesRankingLoss(mini_batch_num_tokens=options.mini_batch_tokens)
    config = TrainingConfig(epochs=4, batch_size=options.batch_size, learning_rate=5e-5, max_steps=options.steps)
    history = Trainer(model, data, loss=loss, config=config).train()
    model.save_pretrained(options.output)

    after = evaluator(model)["spearman_cosine"]
    print(f"mean loss {history.train_loss:.4f}; Spearman on graded answers {before:.4f} before, {after:.4f} after")


if __name__ == "__main__":
    main()
