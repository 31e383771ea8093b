"""Graded pairs with the Trainer, an evaluation data set and an evaluator: print every loss and score."""

import json
import sys
import tempfile

from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator
from sentence_transformers.losses import CoSENTLoss

ROWS = {
    "sentence1": [
        "the cat sat on the mat",
        "the dog ran fast",
        "the sky is blue",
        "how red is the tree",
        "one cat and two dog",
        "three dog ran to the sea",
        "what is the sky",
        "not the red mat",
        "a slow cat",
        "why is it so",
    ],
    "sentence2": [
        "a cat sat on a mat",
        "the dog ran slow",
        "the sea is blue",
        "why is the tree red",
        "the sky is red",
        "a dog ran to sea",
        "how fast is the dog",
        "the blue mat",
        "a slow dog",
        "how is it so",
    ],
    "score": [0.9, 0.6, 0.5, 0.8, 0.0, 0.85, 0.1, 0.4, 0.55, 0.7],
}

model = SentenceTransformer(sys.argv[1], device="cpu")
train_dataset = Dataset.from_dict(ROWS)
eval_dataset = train_dataset.select(range(5))
evaluator = EmbeddingSimilarityEvaluator(
    eval_dataset["sentence1"], eval_dataset["sentence2"], eval_dataset["score"], name="sts-dev"
)

with tempfile.TemporaryDirectory() as output:
    args = SentenceTransformerTrainingArguments(
        output_dir=output,
        num_train_epochs=2,
        per_device_train_batch_size=4,
        per_device_eval_batch_size=4,
        learning_rate=1e-3,
        weight_decay=0.01,
        warmup_ratio=0.1,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        save_total_limit=2,
        logging_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="sts-dev_spearman_cosine",
        run_name="sts",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        loss=CoSENTLoss(model),
        evaluator=evaluator,
    )
    trainer.train()
    model.save_pretrained(f"{output}/final")
    again = SentenceTransformer(f"{output}/final", device="cpu")

found = [
    entry[name]
    for entry in trainer.state.log_history
    for name in ("loss", "eval_loss", "eval_sts-dev_spearman_cosine", "learning_rate")
    if name in entry
]
print(json.dumps([*found, trainer.state.best_metric, *again.encode("the cat")[:4].tolist()]))
