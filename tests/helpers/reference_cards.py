"""Let the installed reference, of any version, write model cards of toy models.

Runs in its own interpreter: `python reference_cards.py MODEL_FOLDER OUTPUT_FOLDER` writes OUTPUT_FOLDER/NAME.md for
every case and prints their names.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from card_cases import AWKWARD, FITTED, TRAINED, examples, pairs, scored, texts, triplets
from datasets import Dataset, DatasetDict, Features, IterableDataset, Value
from sentence_transformers import (
    InputExample,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)

FOLDER, OUTPUT = Path(sys.argv[1]), Path(sys.argv[2])


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"sentence_transformers.sentence_transformer.{name}")
    except ImportError:
        return importlib.import_module(f"sentence_transformers.{name}")


losses, evaluation = _module("losses"), _module("evaluation")


def _pairs(n: int = 24, **more: Any) -> Dataset:
    return Dataset.from_dict(pairs(n, **more))


def _scored(n: int = 24) -> Dataset:
    return Dataset.from_dict(scored(n))


def _train(data: Any, loss: Any, *, before: Any = None, evaluator: Any = None, **settings: Any) -> SentenceTransformer:
    model = SentenceTransformer(str(FOLDER), device="cpu")
    if before is not None:
        before(model)
    eval_data = settings.pop("eval_dataset", None)
    args: dict[str, Any] = {
        "output_dir": str(OUTPUT / "work"),
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "num_train_epochs": 1,
        **settings,
    }
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(**args),
        train_dataset=data,
        eval_dataset=eval_data,
        loss=loss(model),
        evaluator=evaluator,
    )
    trainer.train()
    return model


def _sts(name: str) -> Any:
    rows = _scored(8)
    return evaluation.EmbeddingSimilarityEvaluator(rows["sentence1"], rows["sentence2"], rows["score"], name=name)


def _binary(name: str) -> Any:
    return evaluation.BinaryClassificationEvaluator(texts(8, 5), texts(8, 6), [0, 1] * 4, name=name)


def _triplet(name: str) -> Any:
    return evaluation.TripletEvaluator(*triplets().values(), name=name)


def _evaluator(parts: list[tuple[str, str]]) -> Any:
    made = [{"similarity": _sts, "triplet": _triplet, "binary": _binary}[kind](name) for kind, name in parts]
    return evaluation.SequentialEvaluator(made) if len(made) > 1 else made[0] if made else None


def _retrieval() -> Any:
    queries = {f"q{i}": text for i, text in enumerate(texts(4, 7))}
    corpus = {f"d{i}": text for i, text in enumerate(texts(9, 8))}
    relevant = {f"q{i}": {f"d{i}"} for i in range(4)}
    return evaluation.InformationRetrievalEvaluator(queries, corpus, relevant, truncate_dim=16, name="tiny-ir")


def _mnrl(model: Any) -> Any:
    return losses.MultipleNegativesRankingLoss(model)


def _matryoshka(model: Any) -> Any:
    return losses.MatryoshkaLoss(model, losses.MultipleNegativesRankingLoss(model), matryoshka_dims=[32, 16])


def _named(model: SentenceTransformer) -> None:
    data = model.model_card_data
    data.set_language(["en", "de"])
    data.set_license("apache-2.0")
    data.model_name, data.model_id = "A name: of a model", "me/my-model"
    data.base_model, data.base_model_revision = "some/base", "0123456789abcdef0123456789abcdef01234567"
    emissions = SimpleNamespace(
        emissions=0.0123,
        energy_consumed=0.0456,
        on_cloud="N",
        cpu_model="Some CPU",
        ram_total_size=31.25,
        duration=1800,
        gpu_model="1 x Some GPU",
    )
    tracker = SimpleNamespace(_start_time=1.0, _prepare_emissions_data=lambda: emissions, _tasks={})
    data.code_carbon_callback = SimpleNamespace(tracker=tracker)
    data.datasets = ["some/data"]


def _as_ours(case: dict[str, Any]) -> SentenceTransformer:
    data = {name: Dataset.from_dict(columns) for name, columns in case["rows"].items()}
    single = "" in data

    def loss(model: Any) -> Any:
        found = {name: getattr(losses, kind)(model) for name, kind in case["losses"].items()}
        return found[""] if single else found

    held_out = {name: Dataset.from_dict(columns) for name, columns in case.get("held_out", {}).items()}
    evaluates = case["dev"] or held_out
    settings: dict[str, Any] = {"eval_strategy": "epoch" if evaluates else "no", "num_train_epochs": 2}
    settings |= case.get("settings", [{}])[-1]
    settings["eval_dataset"] = held_out.get("", DatasetDict(held_out)) if held_out else None
    if "best" in case:
        settings = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
        settings |= {"num_train_epochs": 4, "learning_rate": 1e-2, "load_best_model_at_end": True}
        settings |= {"metric_for_best_model": "eval_sequential_score", "greater_is_better": True}
    return _train(
        data[""] if single else DatasetDict(data),
        loss,
        evaluator=_evaluator(case["dev"]),
        logging_steps=2,
        seed=case["seed"],
        **settings,
    )


def _fitted(name: str) -> None:
    case = FITTED[name]
    model = SentenceTransformer(str(FOLDER), device="cpu")
    torch.manual_seed(11)
    objectives: list[Any] = [
        (
            torch.utils.data.DataLoader(examples(columns, InputExample), batch_size=8, shuffle=True),
            getattr(losses, case["losses"][dataset])(model),
        )
        for dataset, columns in case["rows"].items()
    ]
    model.fit(
        objectives,
        evaluator=_evaluator(case["dev"]),
        epochs=2,
        warmup_steps=2,
        output_path=str(OUTPUT / "models" / name),
        checkpoint_path=str(OUTPUT / "work" / name),
        checkpoint_save_steps=10_000,
        show_progress_bar=False,
        **case["settings"],
    )


def cases() -> dict[str, Any]:
    several = {name: _pairs(16) for name in ("first", "second_set", "third", "fourth")}
    many = {"first": _pairs(16), "scored": _scored(16)}
    best = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    return {
        "untrained": lambda: SentenceTransformer(str(FOLDER), device="cpu"),
        "awkward": lambda: _train(Dataset.from_dict({"anchor": AWKWARD, "positive": AWKWARD[::-1]}), _mnrl),
        "triplets": lambda: _train(
            Dataset.from_dict({"a": texts(14, 1), "p": texts(14, 2), "n": texts(14, 3)}), losses.TripletLoss
        ),
        "scored": lambda: _train(
            _scored(),
            losses.CosineSimilarityLoss,
            eval_dataset=_scored(8),
            evaluator=evaluation.SequentialEvaluator([_sts("dev"), _sts("test"), _binary("two")]),
            logging_steps=1,
            load_best_model_at_end=True,
            metric_for_best_model="eval_loss",
            **best,
        ),
        "ints": lambda: _train(_pairs(label=[0, 1, 1] * 8), losses.ContrastiveLoss),
        "one_int": lambda: _train(_pairs(label=[1] * 24), losses.ContrastiveLoss),
        "lists": lambda: _train(
            Dataset.from_dict({"s": texts(8, 1), "label": [[0.5] * 32] * 8}),
            losses.MSELoss,
        ),
        "margins": lambda: _train(
            Dataset.from_dict(
                {
                    "q": texts(8, 1),
                    "p": texts(8, 2),
                    "n1": texts(8, 3),
                    "n2": texts(8, 4),
                    "label": [[0.5, 1.5]] * 8,
                }
            ),
            losses.MarginMSELoss,
        ),
        "several": lambda: _train(DatasetDict(several), _mnrl, logging_steps=2, eval_dataset=DatasetDict(several)),
        "two": lambda: _train(
            DatasetDict(many),
            lambda model: {"first": _mnrl(model), "scored": losses.CosineSimilarityLoss(model)},
            eval_dataset=DatasetDict(many),
            eval_strategy="epoch",
            multi_dataset_batch_sampler="round_robin",
            seed=7,
        ),
        "long_log": lambda: _train(_pairs(), _mnrl, logging_steps=1, num_train_epochs=9, per_device_train_batch_size=2),
        "matryoshka": lambda: _train(
            _pairs(), _matryoshka, evaluator=_sts(""), eval_strategy="epoch", learning_rate=1e-3, warmup_steps=2
        ),
        "queries": lambda: _train(
            Dataset.from_dict({"query": AWKWARD, "answer": AWKWARD[::-1]}),
            _mnrl,
            evaluator=_retrieval(),
            logging_steps=1,
        ),
        "cached": lambda: _train(_pairs(), lambda model: losses.CachedMultipleNegativesRankingLoss(model)),
        "named": lambda: _train(DatasetDict(several), _mnrl, before=_named),
        "streamed": lambda: _train(
            IterableDataset.from_generator(
                lambda: iter([{"a": "one", "b": "two"}] * 16),
                features=Features({"a": Value("string"), "b": Value("string")}),
            ),
            _mnrl,
            max_steps=2,
        ),
        **{name: partial(_as_ours, case) for name, case in TRAINED.items()},
        **{name: partial(_fitted, name) for name in FITTED},
    }


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    (OUTPUT / "work").mkdir(parents=True)
    written, failed = [], {}
    for name, case in cases().items():
        model = OUTPUT / "models" / name
        try:
            trained = case()
            if trained is not None:  # `fit` saves its model itself
                trained.save_pretrained(str(model))
            text = (model / "README.md").read_bytes()
        except Exception as error:  # a version that cannot do a case writes no card of it
            failed[name] = repr(error)
            continue
        (OUTPUT / f"{name}.md").write_bytes(text)
        written.append(name)
    print(json.dumps({"written": written, "failed": failed}))


main()
