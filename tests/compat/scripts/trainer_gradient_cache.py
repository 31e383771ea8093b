"""Large batches with a gradient cache, and an optimizer and scheduler of torch: print the losses."""

import json
import sys
import tempfile

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
)

WORDS = ["cat", "dog", "mat", "sky", "sea", "tree"]
PAIRS = [(f"how is the {one} on the {two}", f"the {one} is on the {two}") for one in WORDS for two in WORDS[:2]]

model = SentenceTransformer(sys.argv[1], device="cpu")
dataset = Dataset.from_dict({"question": [one for one, _ in PAIRS], "answer": [two for _, two in PAIRS]})
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)

with tempfile.TemporaryDirectory() as output:
    args = SentenceTransformerTrainingArguments(
        output_dir=output,
        num_train_epochs=2,
        per_device_train_batch_size=8,
        batch_sampler="no_duplicates",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=args,
        train_dataset=dataset,
        loss=losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=3),
        optimizers=(optimizer, scheduler),
    )
    trainer.train()

print(json.dumps([entry["loss"] for entry in trainer.state.log_history if "loss" in entry]))
