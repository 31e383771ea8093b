"""Distill a model into one with half its layers: the student learns the teacher's embeddings.

python examples/distill.py --output my-student
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from torch import nn

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.data.packaged import GRADED_ANSWERS_HELDOUT, GRADED_ANSWERS_TRAIN


def sentences(path: Path) -> list[str]:
    """Return every text of the file once; no labels are needed."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return list(dict.fromkeys(row[name] for row in rows for name in ("question", "reference", "answer")))


def main() -> None:
    """Train the student on the packaged texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="stop after this many steps")
    parser.add_argument("--output", type=Path, default=Path("my-student"))
    options = parser.parse_args()

    teacher, student = (SentenceTransformer("all-MiniLM-L6-v2") for _ in range(2))
    transformer = student.transformer
    transformer.auto_model.layers = nn.ModuleList(list(transformer.auto_model.layers)[::2])  # every second layer
    transformer.config["num_hidden_layers"] = len(transformer.auto_model.layers)  # for the saved model

    texts = sentences(GRADED_ANSWERS_TRAIN)
    rows = {"text": texts, "label": list(teacher.encode(texts))}  # an embedding for each text
    config = TrainingConfig(epochs=10, batch_size=16, learning_rate=2e-4, warmup_steps=0.1, max_steps=options.steps)
    heldout = sentences(GRADED_ANSWERS_HELDOUT)
    goal = teacher.encode(heldout)
    before = student.similarity_pairwise(student.encode(heldout), goal).mean()
    Trainer(student, rows, loss=losses.MSELoss(), config=config).train()
    student.save_pretrained(options.output)

    # Expect the student's embeddings of texts it has not seen to come closer to the teacher's; more texts help more.
    after = student.similarity_pairwise(SentenceTransformer(options.output).encode(heldout), goal).mean()
    print(f"mean similarity to the teacher: {before:.4f} before, {after:.4f} after; the student is in {options.output}")


if __name__ == "__main__":
    main()
