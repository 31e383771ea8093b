"""The rows that the reference trains on in each of several processes; started under torchrun."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss


def main(folder: Path, count: int, batch_size: int) -> None:
    torch.set_num_threads(1)
    model = SentenceTransformer(str(folder / "model"), device="cpu")
    data = Dataset.from_dict({"anchor": [f"a {i}" for i in range(count)], "positive": [f"b {i}" for i in range(count)]})
    seen: list[list[str]] = []

    class Noting(MultipleNegativesRankingLoss):
        def forward(self, sentence_features: Any, labels: Any) -> Any:
            features = list(sentence_features)
            seen.append(model.tokenizer.batch_decode(features[0]["input_ids"], skip_special_tokens=True))
            return super().forward(features, labels)

    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder / "reference"),
        num_train_epochs=1,
        per_device_train_batch_size=batch_size,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        **json.loads(sys.argv[4] if len(sys.argv) > 4 else "{}"),
    )
    SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data, loss=Noting(model)).train()
    rows = [[int(text.split()[1]) for text in batch] for batch in seen]
    (folder / f"reference-{os.environ['RANK']}.json").write_text(json.dumps(rows))


main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
