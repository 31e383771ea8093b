"""The reference in each of several processes: the rows it trains on, and what it learns; started under torchrun."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss


def train(folder: Path, count: int, *, gathers: bool = False) -> tuple[SentenceTransformer, list[list[int]]]:
    """Train an epoch of `count` rows in batches of 2; return the model, and the rows of each batch of this process."""
    model = SentenceTransformer(str(folder / "model"), device="cpu")
    data = Dataset.from_dict({"anchor": [f"a {i}" for i in range(count)], "positive": [f"b {i}" for i in range(count)]})
    seen: list[list[int]] = []

    class Noting(MultipleNegativesRankingLoss):
        def forward(self, sentence_features: Any, labels: Any) -> Any:
            features = list(sentence_features)
            texts = model.tokenizer.batch_decode(features[0]["input_ids"], skip_special_tokens=True)
            seen.append([int(text.split()[1]) for text in texts])
            return super().forward(features, labels)

    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder / "reference"),
        num_train_epochs=1,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    loss = Noting(model, gather_across_devices=gathers)
    SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data, loss=loss).train()
    return model, seen


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    rows = train(place, 11)[1]
    (place / f"reference-{os.environ['RANK']}.json").write_text(json.dumps(rows))
    trained = train(place, 12, gathers=True)[0]
    if os.environ["RANK"] == "0":
        np.save(place / "reference.npy", trained.encode([f"a {i}" for i in range(12)]))
