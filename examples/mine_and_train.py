"""Mine hard negatives for pairs of question and answer, train with them, and measure retrieval before and after.

python examples/mine_and_train.py --output my-retriever
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses, util
from minisbert.data.packaged import GRADED_ANSWERS_HELDOUT, GRADED_ANSWERS_TRAIN
from minisbert.evaluation import InformationRetrievalEvaluator


def pairs(path: Path) -> list[tuple[str, str]]:
    """Return question and reference answer, each pair once."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return list(dict.fromkeys((row["question"], row["reference"]) for row in rows))


def main() -> None:
    """Train a retriever on the packaged questions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("my-retriever"))
    options = parser.parse_args()

    train, heldout = pairs(GRADED_ANSWERS_TRAIN), pairs(GRADED_ANSWERS_HELDOUT)
    answers = list(dict.fromkeys(answer for _, answer in train + heldout))
    evaluator = InformationRetrievalEvaluator(
        {question: question for question, _ in heldout},
        {answer: answer for answer in answers},
        {question: {answer} for question, answer in heldout},
    )
    model = SentenceTransformer("all-MiniLM-L6-v2")
    before = evaluator(model)["cosine_mrr@10"]

    # Answers to other questions that the model ranks high, but not above the right one.
    rows = util.mine_hard_negatives(train, model, corpus=answers, num_negatives=1, relative_margin=0.05)
    config = TrainingConfig(epochs=options.epochs, batch_size=8, batch_sampler="no_duplicates")
    loss = losses.MultipleNegativesRankingLoss()
    history = Trainer(model, rows, loss=loss, config=config).train()

    model.save_pretrained(options.output)
    after = evaluator(model)["cosine_mrr@10"]
    print(f"{history.steps} steps; MRR@10 {before:.4f} before, {after:.4f} after; the model is in {options.output}")


if __name__ == "__main__":
    main()
