"""Ranking with a guide that hides false negatives: print the losses."""

import json
import sys
import tempfile

from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
)

PAIRS = [
    ("how is the sky", "the sky is blue"),
    ("what ran fast", "the dog ran fast"),
    ("why is the cat slow", "the cat sat on the mat"),
    ("how red is the sea", "the sea is not red"),
    ("what is on the tree", "a cat is on the tree"),
    ("one or two", "two and three"),
    ("what is blue", "the sky is blue"),
]

model = SentenceTransformer(sys.argv[1], device="cpu")
guide = SentenceTransformer(sys.argv[1], device="cpu")
dataset = Dataset.from_list([{"anchor": one, "positive": two} for one, two in PAIRS])

with tempfile.TemporaryDirectory() as output:
    args = SentenceTransformerTrainingArguments(
        output_dir=output,
        num_train_epochs=2,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        dataloader_drop_last=True,
        optim="sgd",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SentenceTransformerTrainer(
        model=model, args=args, train_dataset=dataset, loss=lambda model: losses.GISTEmbedLoss(model, guide)
    )
    trainer.train()

print(json.dumps([entry["loss"] for entry in trainer.state.log_history if "loss" in entry]))
