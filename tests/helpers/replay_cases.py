"""Training runs that minisbert and the reference both do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import references
import torch
from tiny_models import WORDS
from torch.utils.data import DataLoader

from minisbert import InputExample, SentenceTransformer, Trainer, TrainingConfig, losses, util
from minisbert.evaluation import EmbeddingSimilarityEvaluator
from minisbert.training.config import ReplayVersion

SCRIPT = Path(__file__).with_name("reference_run.py")
VERSIONS: dict[ReplayVersion, str] = {"6.2": "6.2.0", "5.1": "5.1.2"}
COSINE, RANKING = "CosineSimilarityLoss", "MultipleNegativesRankingLoss"
THEIR_NAMES = {
    "epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "gradient_accumulation": "gradient_accumulation_steps",
    "eval_every": "eval_steps",
}


@dataclass(frozen=True)
class Rows:
    """How to make a data set: its loss, rows, text columns, and how many different texts and labels there are.

    `options` are the loss's, in which the guide True is the model again; `sizes` are those of a MatryoshkaLoss over it.
    """

    loss: str
    rows: int = 37
    columns: int = 2
    texts: int | None = None
    labels: int | None = None  # different ones; by default as many as rows
    options: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, Any] | None = None

    def make(self) -> dict[str, list[Any]]:
        draw = np.random.default_rng(self.rows)
        texts = [" ".join(draw.choice(WORDS, draw.integers(1, 14))) for _ in range(self.texts or 4 * self.rows)]
        names = ("anchor", "positive", "negative_1", "negative_2")[: self.columns]
        data: dict[str, list[Any]] = {name: draw.choice(texts, self.rows).tolist() for name in names}
        if self.loss == COSINE:
            data["label"] = draw.random(self.rows).round(2).tolist()
        if self.labels:
            data["label"] = (np.sqrt(draw.integers(0, self.labels, self.rows) / self.labels)).round(2).tolist()
        return data


@dataclass(frozen=True)
class Case:
    """A training run that both sides do."""

    datasets: dict[str, Rows]
    settings: dict[str, Any] = field(default_factory=dict)
    architecture: str = "bert"
    evaluate: bool = False
    fit: bool = False
    versions: tuple[ReplayVersion, ...] = ("6.2", "5.1")

    @property
    def several(self) -> bool:
        return self.fit or "" not in self.datasets


def one(loss: str, columns: int = 2, *, texts: int | None = None, **settings: Any) -> Case:
    return Case({"": Rows(loss, 37, columns, texts)}, settings)


SEVERAL = {"scored": Rows(COSINE, 37), "triplets": Rows(RANKING, 20, 3), "pairs": Rows(RANKING, 9)}
TRAINER = {
    "cosine": one(COSINE),
    "cosine, warm-up, accumulation, decay": one(COSINE, gradient_accumulation=2, warmup_steps=3, weight_decay=0.01),
    "ranking": one(RANKING),
    "ranking, one hard negative, warm-up share": one(RANKING, 3, warmup_steps=0.2),
    "ranking, two hard negatives, accumulation": one(RANKING, 4, gradient_accumulation=3),
    "evaluation during training": replace(one(COSINE, eval_every=2), evaluate=True),
    "evaluation and accumulation": replace(one(RANKING, eval_every=3, gradient_accumulation=2), evaluate=True),
    "steps bounded within an epoch": one(COSINE, max_steps=8),
    "no duplicates": one(RANKING, texts=25, batch_sampler="no_duplicates"),
    "no duplicates, one hard negative": one(RANKING, 3, texts=30, batch_sampler="no_duplicates"),
    "several, proportional": Case(SEVERAL),
    "several, round robin": Case(SEVERAL, {"multi_dataset_batch_sampler": "round_robin"}),
    "several, accumulation, evaluation": Case(SEVERAL, {"gradient_accumulation": 2, "eval_every": 2}, evaluate=True),
    "several, no duplicates": Case(
        {"scored": Rows(COSINE, 30, 2, 20), "pairs": Rows(RANKING, 40, 2, 30)}, {"batch_sampler": "no_duplicates"}
    ),
    "several, round robin, no duplicates": Case(
        {"scored": Rows(COSINE, 30, 2, 20), "pairs": Rows(RANKING, 40, 2, 30)},
        {"batch_sampler": "no_duplicates", "multi_dataset_batch_sampler": "round_robin"},
    ),
    "one named data set": Case({"only": Rows(RANKING, 20)}),
    "distilbert": replace(one(RANKING, 3), architecture="distilbert"),
    "mpnet": replace(one(RANKING), architecture="mpnet"),
    "real weights": replace(one(RANKING, 3, epochs=1, learning_rate=5e-5), architecture="minilm"),
    "roberta": replace(one(COSINE), architecture="roberta"),
    "xlm-roberta": replace(one(COSINE), architecture="xlm-roberta"),
}
FIT = {
    "fit, cosine": Case({"": Rows(COSINE)}, {"epochs": 2, "warmup_steps": 2}, fit=True),
    "fit, ranking, its default warm-up": Case({"": Rows(RANKING, 20, 3)}, {"epochs": 2}, fit=True),
    "fit, two objectives": Case(
        {"a": Rows(COSINE, 37), "b": Rows(RANKING, 20)}, {"epochs": 2, "warmup_steps": 1}, fit=True
    ),
    "fit, evaluation": Case(
        {"": Rows(COSINE)}, {"epochs": 2, "warmup_steps": 2, "evaluation_steps": 2}, evaluate=True, fit=True
    ),
    "fit, evaluation after epochs": Case({"": Rows(COSINE)}, {"epochs": 2, "warmup_steps": 2}, evaluate=True, fit=True),
    "fit, bounded steps": Case({"": Rows(COSINE)}, {"steps_per_epoch": 3, "warmup_steps": 1}, fit=True),
    "fit, fewer rows than a batch": Case({"": Rows(COSINE, 5)}, {"epochs": 2, "warmup_steps": 1}, fit=True),
    "fit, distilbert": Case(
        {"": Rows(COSINE)}, {"warmup_steps": 1, "weight_decay": 0.3}, architecture="distilbert", fit=True
    ),
}
CASES = {**TRAINER, **FIT}
RATES = {  # these have no golden vectors
    "cosine rate": one(COSINE, lr_scheduler_type="cosine", warmup_steps=3),
    "cosine rate with restarts": one(
        RANKING, lr_scheduler_type="cosine_with_restarts", lr_scheduler_kwargs={"num_cycles": 2}, warmup_steps=2
    ),
    "polynomial rate": one(COSINE, lr_scheduler_type="polynomial", lr_scheduler_kwargs={"power": 2.0, "lr_end": 1e-5}),
    "constant rate": one(COSINE, lr_scheduler_type="constant", warmup_steps=2),
    "fit, cosine rate beyond its end": Case(
        {"": Rows(COSINE)}, {"epochs": 2, "warmup_steps": 1, "scheduler": "WarmupCosine"}, fit=True
    ),
    "fit, rate with restarts": Case(
        {"": Rows(COSINE)},
        {"epochs": 2, "warmup_steps": 1, "scheduler": "warmupcosinewithhardrestarts"},
        fit=True,
    ),
    "fit, constant rate": Case({"": Rows(COSINE)}, {"warmup_steps": 2, "scheduler": "ConstantLR"}, fit=True),
}


def cached(loss: str, columns: int = 2, *, sizes: dict[str, Any] | None = None, **options: Any) -> Case:
    """A run with a loss with a gradient cache; of 6.2 alone if 5.1 does not have the options."""
    newer = {"directions", "hardness_mode", "mini_batch_num_tokens"} & {*options}
    rows = Rows(f"Cached{loss}", 37, columns, options=options, sizes=sizes)
    return Case({"": rows}, {"epochs": 2}, versions=("6.2",) if newer else ("6.2", "5.1"))


SYMMETRIC, GUIDED = "MultipleNegativesSymmetricRankingLoss", "GISTEmbedLoss"
DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
_PLAIN, _TWO_NEGATIVES = cached(RANKING, mini_batch_size=3), cached(RANKING, 4, mini_batch_size=3)
CACHED = {  # these have none either
    "cached ranking": _PLAIN,
    "cached ranking, two hard negatives": _TWO_NEGATIVES,
    "cached ranking, one mini-batch": cached(RANKING, mini_batch_size=32),
    "cached ranking, dot product": cached(RANKING, 3, mini_batch_size=4, scale=1.0, similarity_fct="dot_score"),
    "cached ranking, accumulation, decay": replace(
        _TWO_NEGATIVES, settings={"gradient_accumulation": 2, "weight_decay": 0.01}
    ),
    "cached ranking, evaluation": replace(_PLAIN, settings={"eval_every": 2}, evaluate=True),
    "cached ranking, mini-batches by tokens": cached(RANKING, 3, mini_batch_num_tokens=40),
    "cached ranking, all directions": cached(RANKING, 3, mini_batch_size=3, directions=DIRECTIONS),
    "cached ranking, hardness": cached(
        RANKING, 4, mini_batch_size=3, hardness_mode="all_negatives", hardness_strength=5.0
    ),
    "cached symmetric ranking": cached(SYMMETRIC, mini_batch_size=3),
    "cached symmetric ranking, one hard negative": cached(SYMMETRIC, 3, mini_batch_size=5),
    "cached guided": cached(GUIDED, guide=True, mini_batch_size=3),
    "cached guided, one hard negative, accumulation": replace(
        cached(GUIDED, 3, guide=True, mini_batch_size=3, temperature=0.1, margin=0.1),
        settings={"gradient_accumulation": 2},
    ),
    "cached guided, relative margin": cached(
        GUIDED, 3, guide=True, mini_batch_size=5, margin_strategy="relative", margin=0.05, contrast_positives=False
    ),
    "sizes of cached ranking": cached(
        RANKING,
        3,
        mini_batch_size=3,
        sizes={"matryoshka_dims": [32, 24, 16, 8], "matryoshka_weights": [1, 0.7, 0.3, 2]},
    ),
    "sizes of cached symmetric ranking": cached(SYMMETRIC, mini_batch_size=3, sizes={"matryoshka_dims": [32, 16, 8]}),
    "sizes of cached guided": cached(
        GUIDED,
        guide=True,
        mini_batch_size=3,
        sizes={"matryoshka_dims": [32, 16, 8], "matryoshka_weights": [1, 0.5, 0.1]},
    ),
    "cached ranking and scored pairs": Case({"pairs": _PLAIN.datasets[""], "scored": Rows(COSINE, 20)}),
    "cached ranking, distilbert": replace(_PLAIN, architecture="distilbert"),
    "cached ranking, mpnet": replace(_PLAIN, architecture="mpnet"),
    "fit, cached ranking": replace(_TWO_NEGATIVES, settings={"epochs": 2, "warmup_steps": 1}, fit=True),
}
PAIRS = Rows(COSINE, 12).make()


def _their_settings(case: Case, version: str) -> dict[str, Any]:
    if case.fit:
        return {"optimizer_params": {"lr": 1e-3}, **case.settings}
    settings = {THEIR_NAMES.get(name, name): value for name, value in _our_settings(case).items()}
    if "eval_steps" in settings:
        settings["eval_strategy"] = "steps"
    if version == "5.1.2" and 0 < settings.get("warmup_steps", 0) < 1:
        settings["warmup_ratio"] = settings.pop("warmup_steps")
    return settings


def _our_settings(case: Case) -> dict[str, Any]:
    return {"epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "seed": 7, **case.settings}


def their_runs(
    version: str,
    root: Path,
    model_folder: Callable[[str], Path],
    cases: Mapping[str, Case],
    *,
    dtype: str = "float32",
) -> dict[str, tuple[list[float], Path]]:
    """Do every case with a version of the reference, on one thread: values of all losses, and the saved model."""
    outputs = {name: root / str(number) for number, name in enumerate(cases)}
    described = [
        {
            "folder": str(model_folder(case.architecture)),
            "output": str(outputs[name]),
            "datasets": {key: rows.make() for key, rows in case.datasets.items()},
            "losses": {key: rows.loss for key, rows in case.datasets.items()},
            "options": {key: rows.options for key, rows in case.datasets.items()},
            "sizes": {key: rows.sizes for key, rows in case.datasets.items()},
            "several": case.several,
            "fit": case.fit,
            "settings": _their_settings(case, version),
            "batch_size": 8,
            "pairs": [PAIRS["anchor"], PAIRS["positive"], PAIRS["label"]] if case.evaluate else None,
            "seed_before": 1234,
            "threads": 1,
            "dtype": dtype,
        }
        for name, case in cases.items()
    ]
    (root / "cases.json").write_text(json.dumps(described), encoding="utf-8")
    code = f"import runpy, sys; sys.argv[:] = {[str(SCRIPT), str(root / 'cases.json')]!r}; "
    code += f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    values = references.run_in(version, code)
    return dict(zip(cases, zip(values, outputs.values(), strict=True), strict=True))


def our_run(
    case: Case, folder: Path, version: ReplayVersion, *, dtype: torch.dtype = torch.float32
) -> tuple[list[float], SentenceTransformer]:
    """Do a case with minisbert: values of all losses, and the trained model."""
    values: list[float] = []

    over_sizes = any(rows.sizes for rows in case.datasets.values())

    def record(module: Any, inputs: Any, output: Any) -> None:
        if isinstance(module, losses.MatryoshkaLoss if over_sizes else losses.Loss):
            values.append(float(output.detach()))

    hook = torch.nn.modules.module.register_module_forward_hook(record)
    try:
        torch.manual_seed(1234)
        model = SentenceTransformer(folder, device="cpu", truncation="count").to(dtype)
        data = {name: rows.make() for name, rows in case.datasets.items()}
        of = {name: _our_loss(rows, model, folder) for name, rows in case.datasets.items()}
        judge = EmbeddingSimilarityEvaluator(PAIRS["anchor"], PAIRS["positive"], PAIRS["label"], write_csv=False)
        if case.fit:
            objectives = [(_loader(data[name]), of[name]) for name in data]
            model.fit(
                objectives,
                evaluator=judge if case.evaluate else None,
                optimizer_params={"lr": 1e-3},
                show_progress_bar=False,
                replay=version,
                **case.settings,
            )
        else:
            Trainer(
                model,
                data if case.several else data[""],
                loss=of if case.several else of[""],
                config=TrainingConfig(replay=version, **_our_settings(case)),
                evaluator=judge if case.evaluate else None,
                show_progress_bar=False,
            ).train()
    finally:
        hook.remove()
    return values, model


def _our_loss(rows: Rows, model: SentenceTransformer, folder: Path) -> losses.Loss:
    options = dict(rows.options)
    if options.get("guide"):
        options["guide"] = SentenceTransformer(folder, device="cpu", truncation="count")
    if "similarity_fct" in options:
        options["similarity_fct"] = getattr(util, options["similarity_fct"])
    loss: losses.Loss = getattr(losses, rows.loss)(model, **options)
    return loss if rows.sizes is None else losses.MatryoshkaLoss(model, loss, **rows.sizes)


def _loader(columns: dict[str, list[Any]]) -> Any:
    texts = [values for name, values in columns.items() if name != "label"]
    labels = columns.get("label", [None] * len(texts[0]))
    rows = [InputExample(texts=list(row[:-1]), label=row[-1]) for row in zip(*texts, labels, strict=True)]
    return DataLoader(rows, batch_size=8, shuffle=True)  # type: ignore[arg-type]
