"""Let the installed reference, of any version, train with many losses, and save each model with its card.

Runs in its own interpreter: `python reference_losses.py CASES.json` reads the cases, each with `loss`, `options`,
`inner`, `data`, `folder`, `output` and `settings`, and saves a model for each in `output`.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)


def _losses() -> Any:
    try:
        return importlib.import_module("sentence_transformers.sentence_transformer.losses")
    except ImportError:
        return importlib.import_module("sentence_transformers.losses")


def main(cases: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    losses = _losses()
    for case in cases:
        model = SentenceTransformer(case["folder"], device="cpu")
        torch.manual_seed(1234)
        inner = {"loss": getattr(losses, case["inner"])(model)} if case["inner"] else {}
        SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=case["output"] + "-work",
                report_to="none",
                save_strategy="no",
                use_cpu=True,
                disable_tqdm=True,
                **case["settings"],
            ),
            train_dataset=Dataset.from_dict(case["data"]),
            loss=getattr(losses, case["loss"])(model, **inner, **case["options"]),
        ).train()
        model.save_pretrained(case["output"])


main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
print("{}")
