"""Teach a model the scores of another one with MarginMSELoss, by a class of optimizer and a fraction of an epoch."""

import json
import sys
import tempfile

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, losses
from sentence_transformers.training_args import SentenceTransformerTrainingArguments

TRIPLETS = [
    ("how is the sky", "the sky is blue", "the red tree"),
    ("what ran fast", "the dog ran fast", "the slow cat"),
    ("why is the cat slow", "the cat sat on the mat", "the dog"),
    ("how red is the sea", "the sea is not red", "one two three"),
    ("what is on the tree", "a cat is on the tree", "why not"),
    ("one or two", "two and three", "a blue mat"),
]

teacher = SentenceTransformer(sys.argv[1], device="cpu")
student = SentenceTransformer(sys.argv[1], device="cpu")
with torch.no_grad():
    for parameter in student.parameters():
        parameter.mul_(0.98)


def margins(batch):
    queries, positives, negatives = (teacher.encode(batch[name]) for name in ("query", "positive", "negative"))
    near = teacher.similarity_pairwise(queries, positives)
    far = teacher.similarity_pairwise(queries, negatives)
    return {"label": (5 * (near - far)).tolist()}


names = ("query", "positive", "negative")
dataset = Dataset.from_list([dict(zip(names, row, strict=True)) for row in TRIPLETS])
dataset = dataset.map(margins, batched=True)

with tempfile.TemporaryDirectory() as output:
    args = SentenceTransformerTrainingArguments(
        output_dir=output,
        num_train_epochs=1.5,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        adam_beta2=0.99,
        adam_epsilon=1e-7,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SentenceTransformerTrainer(
        model=student, args=args, train_dataset=dataset, loss=losses.MarginMSELoss(model=student)
    )
    trainer.train()

print(json.dumps([entry["loss"] for entry in trainer.state.log_history if "loss" in entry]))
