"""What people set up around training is the reference's to the bit in a replay: losses, rates, steps and weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from replay_cases import COSINE, PAIRS, RANKING, Rows
from safetensors.torch import load_file

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.evaluation import EmbeddingSimilarityEvaluator
from minisbert.training.history import LogEntry

reference = pytest.importorskip("sentence_transformers")
datasets = pytest.importorskip("datasets")
evaluation = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")
transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("one_thread"),
]

GROUPED, MORE = Rows(COSINE, 60, labels=7), Rows(COSINE, 41, labels=5)
SCORED, TRIPLETS = Rows(COSINE, 37), Rows(RANKING, 20, 3)
NAMES = {
    "epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "eval_every": "eval_steps",
    "keep_best": "load_best_model_at_end",
}
# Names of the reference for the parameters of a pattern in `freeze`.
FROZEN = {"embeddings": "0.model.embeddings.", "encoder.layer.0": "0.model.encoder.layer.0.", ".*bias": "bias"}
OF_CALLBACK = ("early_stopping_patience", "early_stopping_threshold")


@dataclass(frozen=True)
class Run:
    """A run that both sides do; with the name "" a data set stands alone."""

    train: dict[str, Rows]
    held_out: dict[str, Rows] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    evaluate: bool = False


SEVERAL = {"scored": SCORED, "triplets": TRIPLETS}
HELD_OUT = {"scored": Rows(COSINE, 13), "triplets": Rows(RANKING, 11, 3)}
STOPPING = {"learning_rate": 3e-2, "eval_every": 1, "epochs": 6, "early_stopping_patience": 2}
RUNS = {
    "loss on held-out rows": Run({"": SCORED}, {"": Rows(COSINE, 21)}, {"eval_every": 2}),
    "their batches are shuffled": Run({"": TRIPLETS}, {"": Rows(RANKING, 21, 3)}, {"eval_every": 2}),
    "and of another size": Run({"": TRIPLETS}, {"": Rows(RANKING, 21, 3)}, {"eval_every": 3, "eval_batch_size": 5}),
    "several data sets": Run(SEVERAL, HELD_OUT, {"eval_every": 3}),
    "another set than trained on": Run({"": SCORED}, {"dev": Rows(COSINE, 9), "test": Rows(COSINE, 8)}),
    "no duplicates": Run(
        {"": Rows(RANKING, 37, 2, 25)},
        {"": Rows(RANKING, 16, 2, 90)},
        {"batch_sampler": "no_duplicates", "eval_every": 2},
    ),
    "grouped by label": Run({"": GROUPED}, {"": MORE}, {"batch_sampler": "group_by_label", "eval_every": 3}),
    "several grouped by label": Run({"one": GROUPED, "two": MORE}, {}, {"batch_sampler": "group_by_label"}),
    "round robin of groups": Run(
        {"one": GROUPED, "two": MORE},
        {},
        {"batch_sampler": "group_by_label", "multi_dataset_batch_sampler": "round_robin", "batch_size": 6},
    ),
    "beside an evaluator": Run({"": SCORED}, {"": Rows(COSINE, 21)}, {"eval_every": 2}, evaluate=True),
    "several beside an evaluator": Run(SEVERAL, HELD_OUT, {"eval_every": 3}, evaluate=True),
    "best loss": Run({"": SCORED}, {"": Rows(COSINE, 21)}, {"learning_rate": 2e-2, "eval_every": 2, "keep_best": True}),
    "frozen embeddings": Run({"": TRIPLETS}, {}, {"freeze": ["embeddings"]}),
    "frozen layer and biases": Run({"": SCORED}, {}, {"freeze": ["encoder.layer.0", ".*bias"], "weight_decay": 0.1}),
    "learning rates by name": Run(
        {"": SCORED},
        {},
        {
            "learning_rate_mapping": {r"embeddings\.": 1e-4, r"layer\.1\..*(dense|bias)": 5e-3, "query.weight": 0.0},
            "lr_scheduler_type": "cosine",
            "warmup_steps": 2,
            "weight_decay": 0.1,
        },
    ),
    "learning rates of several data sets": Run(
        SEVERAL, {}, {"learning_rate_mapping": {r"model\.0\.model\.encoder\.layer\.0": 1e-4}}
    ),
    "one prompt": Run({"": TRIPLETS}, {"": HELD_OUT["triplets"]}, {"prompts": "the sky is: "}),
    "prompts by column": Run(
        {"": Rows(RANKING, 20, 4)},
        {"": Rows(RANKING, 9, 4)},
        {"prompts": {"anchor": "why: ", "positive": "of the sea "}},
    ),
    "prompts of one length": Run(
        {"": Rows(RANKING, 20, 4)},
        {},
        {"prompts": {"anchor": "why: ", "positive": "a ", "negative_1": "the ", "negative_2": "not "}},
    ),
    "prompts by data set": Run(SEVERAL, HELD_OUT, {"prompts": {"scored": "why: ", "triplets": "the sea "}}),
    "prompts by data set and column": Run(
        SEVERAL, HELD_OUT, {"prompts": {"triplets": {"anchor": "why: ", "negative_1": "the sea "}}}
    ),
    "early stop by the loss": Run({"": SCORED}, {"": Rows(COSINE, 21)}, {**STOPPING, "metric_for_best_model": "loss"}),
    "early stop by a threshold": Run(
        {"": SCORED},
        {"": Rows(COSINE, 21)},
        {**STOPPING, "metric_for_best_model": "eval_loss", "early_stopping_threshold": 0.02},
    ),
    "early stop by a metric": Run(
        {"": SCORED}, {"": Rows(COSINE, 21)}, {**STOPPING, "metric_for_best_model": "spearman_cosine"}, evaluate=True
    ),
    "early stop by one loss of several": Run(SEVERAL, HELD_OUT, {**STOPPING, "metric_for_best_model": "scored_loss"}),
    "early stop by a metric that is to fall": Run(
        {"": SCORED},
        {},
        {**STOPPING, "metric_for_best_model": "pearson_cosine", "greater_is_better": False},
        evaluate=True,
    ),
}


def settings_of(run: Run) -> dict[str, Any]:
    return {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "seed": 7, "eval_every": 4, **run.settings}


def their_run(run: Run, folder: Path, output: Path) -> list[LogEntry]:
    """The log of the reference; the trained model is saved in `output`."""
    model = reference.SentenceTransformer(str(folder), device="cpu")
    settings = settings_of(run)
    for name in settings.pop("freeze", []):
        for full, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and FROZEN[name] not in full)
    early = {name: settings.pop(name) for name in OF_CALLBACK if name in settings}
    arguments = {NAMES.get(name, name): value for name, value in settings.items()}
    if "load_best_model_at_end" in arguments:
        arguments |= {"save_strategy": "steps", "save_steps": arguments["eval_steps"]}
    loss = {name: getattr(reference.sentence_transformer.losses, one.loss)(model) for name, one in run.train.items()}
    trainer = reference.SentenceTransformerTrainer(
        model=model,
        args=reference.SentenceTransformerTrainingArguments(
            **{
                "output_dir": f"{output}-work",
                "report_to": "none",
                "save_strategy": "no",
                "use_cpu": True,
                "disable_tqdm": True,
                "eval_strategy": "steps" if run.held_out or run.evaluate else "no",
                "logging_steps": 1,
                **arguments,
            }
        ),
        train_dataset=_alone({name: datasets.Dataset.from_dict(one.make()) for name, one in run.train.items()}),
        eval_dataset=_alone({name: datasets.Dataset.from_dict(one.make()) for name, one in run.held_out.items()}),
        loss=_alone(loss),
        evaluator=_judge(evaluation.EmbeddingSimilarityEvaluator, run),
        callbacks=[transformers.EarlyStoppingCallback(**early)] if early else None,
    )
    trainer.train()
    model.save_pretrained(str(output), create_model_card=False)
    return list(trainer.state.log_history)


def our_run(run: Run, folder: Path, output: Path) -> list[LogEntry]:
    """The same here."""
    model = SentenceTransformer(folder, device="cpu", truncation="count")
    loss = {name: getattr(losses, one.loss)() for name, one in run.train.items()}
    trainer = Trainer(
        model,
        _alone({name: one.make() for name, one in run.train.items()}),
        loss=_alone(loss),
        config=TrainingConfig(replay="6.2", log_every=1, **settings_of(run)),
        eval_data=_alone({name: one.make() for name, one in run.held_out.items()}),
        evaluator=_judge(EmbeddingSimilarityEvaluator, run),
        output_dir=f"{output}-run",
        show_progress_bar=False,
    )
    history = trainer.train()
    model.save_pretrained(output, create_model_card=False)
    return history.entries


def _alone(sets: dict[str, Any]) -> Any:
    return sets.get("", sets) if sets else None


def _judge(kind: Callable[..., Any], run: Run) -> Any:
    pairs = (PAIRS["anchor"], PAIRS["positive"], PAIRS["label"])
    return kind(*pairs, write_csv=False) if run.evaluate else None


@pytest.mark.parametrize("name", RUNS)
def test_runs(name: str, tiny: Callable[[str], Path], tmp_path: Path, compare: Callable[..., None]) -> None:
    run = RUNS[name]
    theirs = their_run(run, tiny("bert"), tmp_path / "theirs")
    ours = our_run(run, tiny("bert"), tmp_path / "ours")
    count, exact, metrics = 0, 0.0, 0.0
    for key in ("loss", "learning_rate", *_metrics(ours)):
        mine, wanted = ({entry["step"]: entry[key] for entry in log if key in entry} for log in (ours, theirs))
        assert mine.keys() == wanted.keys(), key
        difference = max(abs(mine[step] - wanted[step]) for step in wanted)
        if key.endswith(("loss", "rate")):
            exact = max(exact, difference)
        else:
            metrics = max(metrics, difference)
        count += len(wanted)
    compare("replay with options: losses, rates, and losses on held-out rows", exact, 0, cases=count)
    compare("replay with options: metrics of an evaluator", metrics, 2e-6)
    mine, wanted = (load_file(tmp_path / place / "model.safetensors") for place in ("ours", "theirs"))
    assert mine.keys() == wanted.keys()
    largest = max(float((mine[key] - wanted[key]).abs().max()) for key in mine)
    compare("replay with options: final weights", largest, 0)


def _metrics(entries: list[LogEntry]) -> list[str]:
    return list(dict.fromkeys(key for entry in entries for key in entry if key.startswith("eval_")))
