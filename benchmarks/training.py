"""The same fine-tuning in minisbert and in the reference: loss curves and final scores side by side.

    python benchmarks/training.py stsb --data FOLDER      # CosineSimilarityLoss on STS-B train, scored on STS-B dev
    python benchmarks/training.py wiki_title --data FOLDER  # MultipleNegativesRankingLoss on Wikipedia titles

FOLDER holds stsb/stsb_train.tsv.gz, stsb/stsb_dev.tsv.gz and wiki_title/wiki_title_train.tsv.gz. Both sides get the
same rows in the same order and the same settings. Dropout is on and drawn differently (texts are packed here and
padded there), so curves agree as two seeds do, not to the digit.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from machine import save, table

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.data.roles import TrainingRows, training_rows
from minisbert.evaluation import EmbeddingSimilarityEvaluator
from minisbert.storage.locate import packaged_model

RECIPES: dict[str, dict[str, Any]] = {
    "stsb": {
        "file": "stsb/stsb_train.tsv.gz",
        "columns": ("sentence1", "sentence2", "score"),
        "scale": (0, 5),
        "loss": "CosineSimilarityLoss",
        "config": {"epochs": 1, "batch_size": 16, "learning_rate": 5e-5, "seed": 42, "log_every": 40},
    },
    "wiki_title": {
        "file": "wiki_title/wiki_title_train.tsv.gz",
        "columns": ("title", "passage"),
        "scale": None,
        "loss": "MultipleNegativesRankingLoss",
        "config": {"max_steps": 150, "batch_size": 16, "learning_rate": 2e-5, "seed": 42, "log_every": 15},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="stop after so many steps")
    options = parser.parse_args()
    recipe = RECIPES[options.recipe]
    settings = {**recipe["config"], **({"max_steps": options.steps} if options.steps else {})}
    rows = training_rows(options.data / recipe["file"], columns=recipe["columns"], scale=recipe["scale"])
    dev = training_rows(options.data / "stsb/stsb_dev.tsv.gz")
    before, ours = run_minisbert(rows, dev, recipe["loss"], settings)
    theirs = run_reference(rows, dev, recipe["loss"], settings)
    print(f"{options.recipe}: {len(rows):,} rows, {recipe['loss']}, {settings}")
    print(
        table([("step", "minisbert", "reference"), *zip(ours["steps"], ours["losses"], theirs["losses"], strict=True)])
    )
    print(
        table(
            [
                ("STS-B dev Spearman", ""),
                ("before", before),
                *((k, v["spearman"]) for k, v in (("minisbert", ours), ("reference", theirs))),
            ]
        )
    )
    save(f"training_{options.recipe}", {"settings": settings, "before": before, "minisbert": ours, "reference": theirs})


def run_minisbert(
    rows: TrainingRows, dev: TrainingRows, loss: str, settings: dict[str, Any]
) -> tuple[float, dict[str, Any]]:
    model = SentenceTransformer(packaged_model(), device="cpu", truncation="count")
    first, second = dev.texts.values()
    evaluator = EmbeddingSimilarityEvaluator(first, second, dev.labels or [])
    before = evaluator(model)["spearman_cosine"]
    trainer = Trainer(model, rows, loss=getattr(losses, loss)(), config=TrainingConfig(**settings))
    history = trainer.train()
    logged = [entry for entry in history.entries if "loss" in entry]
    return before, {
        "steps": [int(entry["step"]) for entry in logged],
        "losses": [entry["loss"] for entry in logged],
        "spearman": evaluator(model)["spearman_cosine"],
    }


def run_reference(rows: TrainingRows, dev: TrainingRows, loss: str, settings: dict[str, Any]) -> dict[str, Any]:
    import sentence_transformers as reference
    from datasets import Dataset
    from scipy.stats import spearmanr

    model = reference.SentenceTransformer(str(packaged_model()), device="cpu")
    columns: dict[str, Any] = {**rows.texts, **({"label": rows.labels} if rows.labels else {})}
    with tempfile.TemporaryDirectory() as folder:
        trainer = reference.SentenceTransformerTrainer(
            model=model,
            args=reference.SentenceTransformerTrainingArguments(
                output_dir=folder,
                num_train_epochs=settings.get("epochs", 1),
                max_steps=settings.get("max_steps", -1),
                per_device_train_batch_size=settings["batch_size"],
                learning_rate=settings["learning_rate"],
                seed=settings["seed"],
                logging_steps=settings["log_every"],
                save_strategy="no",
                report_to="none",
                use_cpu=True,
            ),
            train_dataset=Dataset.from_dict(columns),
            loss=getattr(reference.sentence_transformer.losses, loss)(model),
        )
        trainer.train()
    first, second = (model.encode(texts) for texts in dev.texts.values())
    scores = model.similarity_pairwise(first, second).numpy()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    if len(logged) * settings["log_every"] < trainer.state.global_step:  # the reference drops the last, partial window
        logged.append({"step": trainer.state.global_step, "loss": float("nan")})
    return {
        "steps": [entry["step"] for entry in logged],
        "losses": [entry["loss"] for entry in logged],
        "spearman": float(spearmanr(dev.labels, scores)[0]),
    }


if __name__ == "__main__":
    main()
