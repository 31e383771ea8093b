"""Packed training is replay with other dropout masks: loss curves and final scores over several seeds.

    python benchmarks/packed_and_replay.py --data FOLDER

FOLDER holds stsb/stsb_train.tsv.gz and stsb/stsb_dev.tsv.gz. For each seed all-MiniLM-L6-v2 is trained for an epoch
of STS-B (CosineSimilarityLoss, 16 rows a batch) twice, with dropout: packed, and by replay of the reference's Trainer.
Both see the same rows in the same order; what differs is which weights dropout drops.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from machine import save

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.data.roles import TrainingRows, training_rows
from minisbert.evaluation import EmbeddingSimilarityEvaluator
from minisbert.storage.locate import packaged_model

SETTINGS: dict[str, Any] = {"epochs": 1, "batch_size": 16, "learning_rate": 5e-5, "log_every": 40}


def main() -> None:
    """Train, print each run and the comparison, and write results/packed_and_replay.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="stop after so many steps")
    options = parser.parse_args()
    settings = {**SETTINGS, **({"max_steps": options.steps} if options.steps else {})}
    rows = training_rows(options.data / "stsb/stsb_train.tsv.gz", scale=(0, 5))
    dev = training_rows(options.data / "stsb/stsb_dev.tsv.gz")
    runs: dict[str, list[dict[str, Any]]] = {"packed": [], "replay": []}
    for seed in range(1, options.seeds + 1):
        for layout, done in runs.items():
            config = TrainingConfig(**settings, seed=seed, replay="6.2" if layout == "replay" else None)
            done.append(train(rows, dev, config))
            print(f"{layout:6}  seed {seed}  dev {done[-1]['spearman']:.4f}  losses {done[-1]['losses']}", flush=True)
    scores = {layout: [run["spearman"] for run in done] for layout, done in runs.items()}
    curves = {layout: [run["losses"] for run in done] for layout, done in runs.items()}
    result = {
        "settings": settings,
        "seeds": options.seeds,
        "runs": runs,
        "spearman": compared(scores["packed"], scores["replay"]),
        "losses": [
            compared(packed, replay)
            for packed, replay in zip(
                zip(*curves["packed"], strict=True), zip(*curves["replay"], strict=True), strict=True
            )
        ],
    }
    print(f"dev Spearman: {result['spearman']}")
    save("packed_and_replay", result)


def train(rows: TrainingRows, dev: TrainingRows, config: TrainingConfig) -> dict[str, Any]:
    """One run: its loss curve and the score of its model."""
    model = SentenceTransformer(packaged_model(), device="cpu", truncation="count")
    first, second = dev.texts.values()
    trainer = Trainer(model, rows, loss=losses.CosineSimilarityLoss(), config=config, show_progress_bar=False)
    history = trainer.train()
    evaluator = EmbeddingSimilarityEvaluator(first, second, dev.labels or [])
    return {
        "losses": [round(entry["loss"], 6) for entry in history.entries if "loss" in entry],
        "spearman": evaluator(model)["spearman_cosine"],
    }


def compared(packed: Any, replay: Any) -> dict[str, float]:
    """Means over the seeds, the mean difference of equal seeds, and the standard error of that difference."""
    differences = [ours - theirs for ours, theirs in zip(packed, replay, strict=True)]
    error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
    return {
        "packed": fmean(packed),
        "packed_spread": stdev(packed) if len(differences) > 1 else math.nan,
        "replay": fmean(replay),
        "replay_spread": stdev(replay) if len(differences) > 1 else math.nan,
        "difference": fmean(differences),
        "standard_error": error,
    }


if __name__ == "__main__":
    main()
