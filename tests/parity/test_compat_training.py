"""Arguments, signatures and courses of compat's Trainer and `fit` are those of the reference."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import scored_pairs
from tiny_models import without_dropout

from minisbert import compat
from minisbert.compat.training.arguments import SentenceTransformerTrainingArguments
from minisbert.compat.training.callbacks import TrainerControl, TrainerState
from minisbert.compat.training.fit import FitMixin
from minisbert.compat.training.trainer import SentenceTransformerTrainer

reference = pytest.importorskip("sentence_transformers")
pytest.importorskip("sentence_transformers.losses")
pytest.importorskip("sentence_transformers.evaluation")
datasets = pytest.importorskip("datasets")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.parity, pytest.mark.long, pytest.mark.filterwarnings("ignore")]
FIRST, SECOND, SCORES = scored_pairs(21, seed=11)


def parameters(function: Any) -> list[tuple[str, Any]]:
    """Names and defaults, in order; a default that is made anew each time by what is made."""
    found = []
    for parameter in inspect.signature(function).parameters.values():
        default = parameter.default
        if repr(default) == "<factory>":
            default = getattr(function(output_dir="unused"), parameter.name)
        found.append((parameter.name, getattr(default, "value", default)))
    return found


def test_arguments() -> None:
    theirs, ours = map(
        parameters, (reference.SentenceTransformerTrainingArguments, SentenceTransformerTrainingArguments)
    )
    assert ours[: len(theirs)] == theirs
    older = list(inspect.signature(SentenceTransformerTrainingArguments).parameters.values())[len(theirs) :]
    assert {parameter.kind for parameter in older} == {inspect.Parameter.KEYWORD_ONLY}


def test_values_of_arguments() -> None:
    given: dict[str, Any] = {
        "output_dir": "out",
        "eval_strategy": "steps",
        "load_best_model_at_end": True,
        "warmup_ratio": 0.1,
        "gradient_checkpointing": True,
        "report_to": "none",
        "disable_tqdm": False,
        "use_cpu": True,
        "batch_sampler": "no_duplicates",
    }
    theirs = reference.SentenceTransformerTrainingArguments(**given).to_dict()
    ours = SentenceTransformerTrainingArguments(**given).to_dict()
    apart = {"accelerator_config", "debug", "dataloader_pin_memory"}  # of accelerate, and of what it is run on
    assert list(ours) == list(theirs)
    assert {name: value for name, value in ours.items() if name not in apart} == {
        name: value for name, value in theirs.items() if name not in apart
    }


SETTERS: dict[str, dict[str, Any]] = {
    "set_training": {"learning_rate": 1e-4, "num_epochs": 2, "activation_checkpointing": True},
    "set_evaluate": {"strategy": "steps", "steps": 3, "delay": 2},
    "set_testing": {"batch_size": 3},
    "set_save": {"strategy": "epoch", "total_limit": 2},
    "set_logging": {"steps": 7, "first_step": True},
    "set_optimizer": {"name": "sgd", "weight_decay": 0.1},
    "set_lr_scheduler": {"name": "cosine", "warmup_steps": 0.1},
    "set_dataloader": {"train_batch_size": 3, "drop_last": True, "sampler_seed": 5},
    "set_push_to_hub": {"model_id": "me/mine"},
}


@pytest.mark.filterwarnings("ignore:got push_to_hub")
@pytest.mark.parametrize("name", SETTERS)
def test_setters(name: str) -> None:
    kinds = reference.SentenceTransformerTrainingArguments, SentenceTransformerTrainingArguments
    assert parameters(getattr(kinds[1], name)) == parameters(getattr(kinds[0], name))
    theirs, ours = (getattr(kind("out"), name)(**SETTERS[name]).to_dict() for kind in kinds)
    apart = {"accelerator_config", "debug", "dataloader_pin_memory"}
    assert {one: ours[one] for one in ours if one not in apart} == {
        one: theirs[one] for one in theirs if one not in apart
    }


@pytest.mark.parametrize("name", ["__init__", "train", "evaluate", "predict", "save_model", "log", "add_callback"])
def test_methods_of_the_trainer(name: str) -> None:
    theirs = parameters(getattr(reference.SentenceTransformerTrainer, name))
    assert parameters(getattr(SentenceTransformerTrainer, name))[: len(theirs)] == theirs


@pytest.mark.parametrize("name", ["fit", "old_fit", "smart_batching_collate", "_eval_during_training"])
def test_methods_of_fit(name: str) -> None:
    assert parameters(getattr(FitMixin, name)) == parameters(getattr(reference.SentenceTransformer, name))


def test_states() -> None:
    theirs = dict(parameters(transformers.TrainerState)) | {"log_history": []}
    assert {name: getattr(TrainerState(), name) for name in theirs} == theirs
    assert parameters(TrainerControl) == parameters(transformers.TrainerControl)


class Seen(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
    """Notes the events that both have."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, float]] = []

    def _note(self, event: str, state: Any) -> None:
        self.seen.append((event, state.global_step, round(state.epoch, 6)))

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._note("train_begin", state)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._note("epoch_begin", state)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._note("step_end", state)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._note("epoch_end", state)

    def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._note("log", state)

    def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._note("evaluate", state)

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._note("save", state)

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._note("train_end", state)


COURSES: dict[str, dict[str, Any]] = {
    "steps": {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 4, "logging_steps": 2},
    "epochs": {"eval_strategy": "epoch", "save_strategy": "epoch", "logging_strategy": "epoch"},
    "shares": {"eval_strategy": "steps", "eval_steps": 0.3, "logging_steps": 0.25, "save_steps": 0.5},
    "delayed": {"eval_strategy": "steps", "eval_steps": 2, "eval_delay": 5, "logging_first_step": True},
    "a part of an epoch": {"num_train_epochs": 1.4, "save_strategy": "no", "logging_steps": 3},
    "accumulated": {"gradient_accumulation_steps": 2, "logging_steps": 1, "save_strategy": "no"},
    "best": {
        "eval_strategy": "epoch",
        "save_strategy": "best",
        "load_best_model_at_end": True,
        "learning_rate": 3e-3,
        "num_train_epochs": 4,
    },
    "stopped early": {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        "learning_rate": 0.1,
        "num_train_epochs": 6,
    },
    "dropped": {"dataloader_drop_last": True, "logging_steps": 1, "save_strategy": "no", "data_seed": 5},
    "inverse root": {"lr_scheduler_type": "inverse_sqrt", "warmup_steps": 2, "logging_steps": 1, "save_strategy": "no"},
}
KEYS = ("loss", "learning_rate", "grad_norm", "eval_loss", "epoch", "step")


@pytest.mark.parametrize(
    ("course", "stream"), [*((course, False) for course in COURSES), ("steps", True), ("accumulated", True)]
)
def test_courses(course: str, stream: bool, tmp_path: Path) -> None:
    folder = without_dropout(tmp_path / "bert")
    results = []
    for name, library in (("theirs", reference), ("ours", compat)):
        model = library.SentenceTransformer(str(folder), device="cpu")
        data: Any = datasets.Dataset.from_dict({"a": FIRST, "b": SECOND, "score": SCORES})
        given = {"learning_rate": 1e-3, "num_train_epochs": 2, **COURSES[course]}
        if stream:
            data, given = data.to_iterable_dataset(), {**given, "max_steps": 7}
        seen = Seen()
        callbacks = [seen]
        if course == "stopped early":
            callbacks.append(transformers.EarlyStoppingCallback(2))
        trainer = library.SentenceTransformerTrainer(
            model=model,
            args=library.SentenceTransformerTrainingArguments(
                str(tmp_path / name), per_device_train_batch_size=4, report_to="none", disable_tqdm=True, **given
            ),
            train_dataset=data,
            eval_dataset=datasets.Dataset.from_dict({"a": FIRST[:9], "b": SECOND[:9], "score": SCORES[:9]}),
            loss=library.losses.CosineSimilarityLoss(model),
            callbacks=callbacks,
        )
        output = trainer.train()
        log = [{key: entry[key] for key in KEYS if key in entry} for entry in trainer.state.log_history]
        saved = sorted(one.name for one in (tmp_path / name).glob("checkpoint-*"))
        best = trainer.state.best_metric, trainer.state.best_global_step
        results.append((seen.seen, log, output, saved, best, trainer.state.best_model_checkpoint, model.encode(FIRST)))
    (events, log, output, saved, best, where, vectors), ours = results
    assert ours[0] == events, (ours[0], events)
    assert [list(entry) for entry in ours[1]] == [list(entry) for entry in log]
    for mine, other in zip(ours[1], log, strict=True):
        np.testing.assert_allclose(list(mine.values()), list(other.values()), rtol=2e-3, atol=1e-6)
    assert ours[2].global_step == output.global_step
    assert ours[2].training_loss == pytest.approx(output.training_loss, rel=1e-4)
    assert set(ours[2].metrics) == set(output.metrics)
    assert ours[3] == saved
    assert ours[4][1] == best[1]
    assert (where is None) == (ours[5] is None)
    if where is not None:
        assert Path(ours[5]).name == Path(where).name
    np.testing.assert_allclose(ours[6], vectors, atol=2e-3)


class Measured(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
    """Keeps the metrics of each evaluation."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **more: Any) -> None:
        self.metrics.append(dict(metrics))


@pytest.mark.parametrize("several", [False, True])
def test_evaluations(several: bool, tmp_path: Path) -> None:
    """Terms of a loss, evaluators and several data sets: the same names at the same places, and the same values."""
    folder, results = without_dropout(tmp_path / "bert"), []
    for name, library in (("theirs", reference), ("ours", compat)):
        model = library.SentenceTransformer(str(folder), device="cpu")
        sets = {
            part: datasets.Dataset.from_dict({"a": FIRST[rows], "b": SECOND[rows]})
            for part, rows in (("one", slice(0, 9)), ("two", slice(6, 20)))
        }
        seen = Measured()
        trainer = library.SentenceTransformerTrainer(
            model=model,
            args=library.SentenceTransformerTrainingArguments(
                str(tmp_path / name),
                per_device_train_batch_size=4,
                per_device_eval_batch_size=4,
                max_steps=4,
                logging_steps=2,
                eval_strategy="steps",
                eval_on_start=True,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=sets["two"],
            eval_dataset=sets if several else sets["one"],
            loss=library.losses.GlobalOrthogonalRegularizationLoss(model),
            evaluator=library.evaluation.EmbeddingSimilarityEvaluator(FIRST, SECOND, SCORES, name="dev"),
            callbacks=[seen],
        )
        trainer.train()
        returned = [trainer.evaluate(), trainer.evaluate(sets["two"], metric_key_prefix="last")]
        results.append([*trainer.state.log_history, *seen.metrics, *returned])
    theirs, ours = results
    assert [list(entry) for entry in ours] == [list(entry) for entry in theirs]
    timed = ("_runtime", "_per_second", "total_flos")
    for mine, other in zip(ours, theirs, strict=True):
        kept = [name for name in mine if not name.endswith(timed)]
        np.testing.assert_allclose([mine[one] for one in kept], [other[one] for one in kept], rtol=2e-3, atol=2e-4)
    assert ("eval_two_dev_spearman_cosine" if several else "eval_dev_spearman_cosine") in ours[-2]
