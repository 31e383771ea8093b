"""Triplets with MatryoshkaLoss around a ranking loss, without duplicates in a batch: print the losses."""

import json
import sys
import tempfile

from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
from sentence_transformers.training_args import BatchSamplers, SentenceTransformerTrainingArguments

TRIPLETS = [
    ("the cat sat", "a cat sat on a mat", "the dog ran"),
    ("the dog ran", "a fast dog", "the slow cat"),
    ("blue sky", "the sky is blue", "the red tree"),
    ("red tree", "a tree", "the sea"),
    ("the sea", "blue sea", "the mat"),
    ("the cat sat", "the cat is on the mat", "why not"),
    ("two dog", "one and one dog", "the sky"),
    ("how fast", "how fast is it", "what is slow"),
    ("slow cat", "the cat is slow", "fast dog"),
]

model = SentenceTransformer(sys.argv[1], device="cpu")
names = ("anchor", "positive", "negative")
train_dataset = Dataset.from_list([dict(zip(names, row, strict=True)) for row in TRIPLETS])
loss = MultipleNegativesRankingLoss(model)
loss = MatryoshkaLoss(model, loss, matryoshka_dims=[32, 16, 8])

with tempfile.TemporaryDirectory() as output:
    args = SentenceTransformerTrainingArguments(
        output_dir=output,
        num_train_epochs=2,
        per_device_train_batch_size=3,
        learning_rate=1e-3,
        warmup_steps=1,
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        lr_scheduler_type="cosine",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = SentenceTransformerTrainer(model=model, args=args, train_dataset=train_dataset, loss=loss)
    trainer.train()

print(json.dumps([entry["loss"] for entry in trainer.state.log_history if "loss" in entry]))
