"""Denoising without labels (TSDAE): print the losses, of which the first depends on how the decoder starts."""

import json
import random
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

TEXTS = ["the cat sat on the mat", "the dog ran fast to the sea", "the sky is blue", "why is the tree red and slow"] * 3


def noisy(text):
    words = text.split()
    kept = [word for word in words if random.random() > 0.4]
    return " ".join(kept or words[:1])


random.seed(1)
torch.manual_seed(1)
model = SentenceTransformer(sys.argv[1], device="cpu")
dataset = Dataset.from_dict({"damaged": list(map(noisy, TEXTS)), "original": TEXTS})
loss = losses.DenoisingAutoEncoderLoss(model, tie_encoder_decoder=True)

with tempfile.TemporaryDirectory() as output:
    args = SentenceTransformerTrainingArguments(
        output_dir=output,
        num_train_epochs=4,
        per_device_train_batch_size=4,
        learning_rate=3e-3,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SentenceTransformerTrainer(model=model, args=args, train_dataset=dataset, loss=loss)
    trainer.train()

print(json.dumps([entry["loss"] for entry in trainer.state.log_history if "loss" in entry]))
