"""A loss, a callback and a sampler of the user's own: print the losses, and what the callback saw."""

import json
import sys
import tempfile

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sampler import DefaultBatchSampler
from torch import nn
from transformers import TrainerCallback

ROWS = [
    ("the cat sat on the mat", "a cat sat on a mat", 2),
    ("the dog ran fast", "the dog ran slow", 1),
    ("the sky is blue", "the sea is blue", 1),
    ("one cat and two dog", "the sky is red", 0),
    ("three dog ran to the sea", "a dog ran to sea", 2),
    ("what is the sky", "how fast is the dog", 0),
    ("not the red mat", "the blue mat", 1),
]


class ClassifyPairs(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
        torch.manual_seed(0)
        self.head = nn.Linear(2 * 32, 3)

    def forward(self, sentence_features, labels):
        one, two = (self.model(features)["sentence_embedding"] for features in sentence_features)
        return nn.functional.cross_entropy(self.head(torch.cat([one, (one - two).abs()], dim=1)), labels)


class Steps(TrainerCallback):
    def __init__(self):
        self.seen = []

    def on_step_end(self, args, state, control, **kwargs):
        self.seen.append(state.global_step)
        if state.global_step == 5:
            control.should_training_stop = True
        return control

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen.append(round(logs["epoch"], 6))


class Backwards(DefaultBatchSampler):
    def __init__(self, dataset, batch_size, drop_last, **options):
        super().__init__(range(len(dataset) - 1, -1, -1), batch_size=batch_size, drop_last=drop_last, **options)


model = SentenceTransformer(sys.argv[1], device="cpu")
dataset = Dataset.from_list([{"premise": one, "hypothesis": two, "label": label} for one, two, label in ROWS])
steps = Steps()

with tempfile.TemporaryDirectory() as output:
    args = SentenceTransformerTrainingArguments(
        output_dir=output,
        num_train_epochs=4,
        per_device_train_batch_size=3,
        learning_rate=1e-3,
        batch_sampler=Backwards,
        logging_steps=2,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SentenceTransformerTrainer(
        model=model, args=args, train_dataset=dataset, loss=ClassifyPairs(model), callbacks=[steps]
    )
    result = trainer.train()

found = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
print(json.dumps([*found, result.training_loss, *steps.seen]))
