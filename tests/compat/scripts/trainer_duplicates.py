"""Duplicate questions with in-batch negatives, prompts and gradient accumulation: print the losses."""

import json
import sys
import tempfile

from datasets import Dataset, DatasetDict
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
)

QUESTIONS = [
    ("how red is the tree", "why is the tree red"),
    ("what is the sky", "what is a sky"),
    ("how fast is the dog", "is the dog fast"),
    ("why not the cat", "why is it not the cat"),
    ("how is the sea", "is the sea blue"),
    ("what is one and two", "is one and two three"),
    ("is the mat slow", "why is the mat slow"),
]

model = SentenceTransformer(sys.argv[1], device="cpu")
data = Dataset.from_list([{"anchor": one, "positive": two} for one, two in QUESTIONS])
dataset = DatasetDict({"train": data, "test": data.select(range(3))})

with tempfile.TemporaryDirectory() as output:
    args = SentenceTransformerTrainingArguments(
        output,
        num_train_epochs=3,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        prompts={"anchor": "what is: ", "positive": "how: "},
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        seed=7,
        data_seed=11,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SentenceTransformerTrainer(
        model,
        args,
        dataset["train"],
        dataset["test"],
        losses.MultipleNegativesRankingLoss(model, scale=20.0),
    )
    trainer.train()

found = [entry.get("loss", entry.get("eval_loss")) for entry in trainer.state.log_history]
print(json.dumps([loss for loss in found if loss is not None]))
