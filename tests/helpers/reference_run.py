"""Train with the installed reference, of any version, and say what came out.

Runs in its own interpreter: `python reference_run.py CASES.json` prints, for each case, the value of every call of a
loss in order. The trained model is saved where the case says.
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
    InputExample,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"sentence_transformers.sentence_transformer.{name}")
    except ImportError:
        return importlib.import_module(f"sentence_transformers.{name}")


def main(cases: list[dict[str, Any]]) -> list[list[float]]:
    torch.set_num_threads(cases[0]["threads"])
    values: list[float] = []
    kinds = tuple(getattr(_module("losses"), name) for name in ("CosineSimilarityLoss", "MultipleNegativesRankingLoss"))

    def record(module: Any, inputs: Any, output: Any) -> None:
        if isinstance(module, kinds):
            values.append(float(output.detach()))

    torch.nn.modules.module.register_module_forward_hook(record)
    results = []
    for case in cases:
        values.clear()
        torch.manual_seed(case["seed_before"])
        model = SentenceTransformer(case["folder"], device="cpu").to(getattr(torch, case["dtype"]))
        (_fit if case["fit"] else _train)(model, case)
        model.save_pretrained(case["output"], create_model_card=False)
        results.append(list(values))
    return results


def _train(model: SentenceTransformer, case: dict[str, Any]) -> None:
    losses = {name: getattr(_module("losses"), kind)(model) for name, kind in case["losses"].items()}
    datasets = {name: Dataset.from_dict(columns) for name, columns in case["datasets"].items()}
    single = not case["several"]
    settings = SentenceTransformerTrainingArguments(
        output_dir=case["output"] + "-work",
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        **case["settings"],
    )
    SentenceTransformerTrainer(
        model=model,
        args=settings,
        train_dataset=datasets[""] if single else datasets,
        loss=losses[""] if single else losses,
        evaluator=_evaluator(case),
    ).train()


def _fit(model: SentenceTransformer, case: dict[str, Any]) -> None:
    objectives = []
    for name, columns in case["datasets"].items():
        texts = [values for column, values in columns.items() if column != "label"]
        labels = columns.get("label", [0] * len(texts[0]))
        rows = [InputExample(texts=list(row[:-1]), label=row[-1]) for row in zip(*texts, labels, strict=True)]
        loader: Any = torch.utils.data.DataLoader(rows, batch_size=case["batch_size"], shuffle=True)
        objectives.append((loader, getattr(_module("losses"), case["losses"][name])(model)))
    work = Path(case["output"] + "-work")
    model.fit(
        objectives,
        evaluator=_evaluator(case),
        checkpoint_path=str(work),
        checkpoint_save_steps=10_000,
        show_progress_bar=False,
        **case["settings"],
    )


def _evaluator(case: dict[str, Any]) -> Any:
    if not case["pairs"]:
        return None
    return _module("evaluation").EmbeddingSimilarityEvaluator(*case["pairs"], write_csv=False)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
