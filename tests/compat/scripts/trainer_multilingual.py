"""Teacher and student over translations with MSELoss, and evaluators for them: print losses and scores."""

import json
import sys
import tempfile

from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.evaluation import MSEEvaluator, SequentialEvaluator, TranslationEvaluator
from sentence_transformers.losses import MSELoss

SOURCE = ["the cat", "the dog ran", "blue sky", "a red tree", "one two three", "the sea is slow"]
TARGET = ["le chat", "le chien", "ciel bleu", "un arbre", "un deux trois", "la mer"]

teacher = SentenceTransformer(sys.argv[1], device="cpu")
student = SentenceTransformer(sys.argv[1], device="cpu")
student.max_seq_length = 16
dataset = Dataset.from_dict({"english": SOURCE, "non_english": TARGET, "label": teacher.encode(SOURCE).tolist()})
evaluator = SequentialEvaluator(
    [
        MSEEvaluator(SOURCE, TARGET, teacher_model=teacher, name="en-fr", write_csv=False),
        TranslationEvaluator(SOURCE, TARGET, name="en-fr", batch_size=4, write_csv=False),
    ]
)

with tempfile.TemporaryDirectory() as output:
    args = SentenceTransformerTrainingArguments(
        output_dir=output,
        max_steps=5,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=2,
        logging_steps=1,
        logging_first_step=True,
        eval_strategy="steps",
        eval_steps=0.5,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SentenceTransformerTrainer(
        model=student, args=args, train_dataset=dataset, loss=MSELoss(model=student), evaluator=[evaluator]
    )
    trainer.train()

found = [
    entry[name]
    for entry in trainer.state.log_history
    for name in ("loss", "eval_en-fr_negative_mse", "eval_en-fr_mean_accuracy")
    if name in entry
]
print(json.dumps(found))
