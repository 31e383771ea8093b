"""Several data sets, each with its loss, evaluated one by one: print all losses."""

import json
import sys
import tempfile

from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, losses
from sentence_transformers.training_args import (
    MultiDatasetBatchSamplers,
    SentenceTransformerTrainingArguments,
)

PAIRS = [
    ("how is the sky", "the sky is blue"),
    ("what ran fast", "the dog ran fast"),
    ("why is the cat slow", "the cat sat on the mat"),
    ("how red is the sea", "the sea is not red"),
    ("what is on the tree", "a cat is on the tree"),
]
GRADED = [
    ("the cat sat on the mat", "a cat sat on a mat", 1.0),
    ("the dog ran fast", "the dog ran slow", 0.5),
    ("the sky is blue", "the sea is blue", 0.25),
    ("one cat and two dog", "the sky is red", 0.0),
]
SAME = [
    ("a red tree", "the tree is red", 1),
    ("a red tree", "the sea", 0),
    ("two dog", "one dog and one dog", 1),
    ("two dog", "the sky", 0),
]

model = SentenceTransformer(sys.argv[1], device="cpu")
train_dataset = {
    "qa": Dataset.from_list([{"anchor": one, "positive": two} for one, two in PAIRS]),
    "sts": Dataset.from_list([{"sentence1": one, "sentence2": two, "score": score} for one, two, score in GRADED]),
    "same": Dataset.from_list([{"sentence1": one, "sentence2": two, "label": label} for one, two, label in SAME]),
}
loss = {
    "qa": losses.MultipleNegativesRankingLoss(model),
    "sts": losses.CosineSimilarityLoss(model),
    "same": losses.OnlineContrastiveLoss(model),
}

found = []
for order in (MultiDatasetBatchSamplers.PROPORTIONAL, MultiDatasetBatchSamplers.ROUND_ROBIN):
    with tempfile.TemporaryDirectory() as output:
        args = SentenceTransformerTrainingArguments(
            output_dir=output,
            num_train_epochs=2,
            per_device_train_batch_size=2,
            learning_rate=1e-3,
            multi_dataset_batch_sampler=order,
            eval_strategy="epoch",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = SentenceTransformerTrainer(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset={name: train_dataset[name] for name in ("qa", "sts")},
            loss=loss,
        )
        trainer.train()
    names = ("loss", "eval_qa_loss", "eval_sts_loss")
    found += [entry[name] for entry in trainer.state.log_history for name in names if name in entry]

print(json.dumps(found))
