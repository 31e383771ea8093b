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
    util,
)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"sentence_transformers.sentence_transformer.{name}")
    except ImportError:
        return importlib.import_module(f"sentence_transformers.{name}")


def main(cases: list[dict[str, Any]]) -> list[list[float]]:
    torch.set_num_threads(cases[0]["threads"])
    values: list[float] = []
    recorded: set[int] = set()

    def record(module: Any, inputs: Any, output: Any) -> None:
        if id(module) in recorded:
            values.append(float(output.detach()))

    torch.nn.modules.module.register_module_forward_hook(record)
    results = []
    for case in cases:
        values.clear()
        torch.manual_seed(case["seed_before"])
        model = SentenceTransformer(case["folder"], device="cpu").to(getattr(torch, case["dtype"]))
        losses = {name: _loss(name, model, case) for name in case["losses"]}
        recorded = {id(loss) for loss in losses.values()}
        (_fit if case["fit"] else _train)(model, case, losses)
        model.save_pretrained(case["output"], create_model_card=False)
        results.append(list(values))
    return results


def _loss(name: str, model: SentenceTransformer, case: dict[str, Any]) -> Any:
    options, sizes = case["options"][name], case["sizes"][name]
    if options.get("guide"):
        options["guide"] = SentenceTransformer(case["folder"], device="cpu").to(getattr(torch, case["dtype"]))
    if "similarity_fct" in options:
        options["similarity_fct"] = getattr(util, options["similarity_fct"])
    loss = getattr(_module("losses"), case["losses"][name])(model, **options)
    return loss if sizes is None else _module("losses").MatryoshkaLoss(model, loss, **sizes)


def _train(model: SentenceTransformer, case: dict[str, Any], losses: dict[str, Any]) -> None:
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


def _fit(model: SentenceTransformer, case: dict[str, Any], losses: dict[str, Any]) -> None:
    objectives = []
    for name, columns in case["datasets"].items():
        texts = [values for column, values in columns.items() if column != "label"]
        labels = columns.get("label", [0] * len(texts[0]))
        rows = [InputExample(texts=list(row[:-1]), label=row[-1]) for row in zip(*texts, labels, strict=True)]
        loader: Any = torch.utils.data.DataLoader(rows, batch_size=case["batch_size"], shuffle=True)
        objectives.append((loader, losses[name]))
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
