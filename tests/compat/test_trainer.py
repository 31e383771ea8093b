"""The reference's Trainer over minisbert's: its log, callbacks, losses, data, optimizers and files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common import scored_pairs
from tiny_models import without_dropout
from torch import Tensor, nn

from minisbert.compat import losses
from minisbert.compat.evaluation import EmbeddingSimilarityEvaluator
from minisbert.compat.model import SentenceTransformer
from minisbert.compat.samplers import DefaultBatchSampler
from minisbert.compat.training.arguments import SentenceTransformerTrainingArguments
from minisbert.compat.training.callbacks import TrainerControl, TrainerState
from minisbert.compat.training.trainer import SentenceTransformerTrainer
from minisbert.errors import ConfigError, InputError

FIRST, SECOND, SCORES = scored_pairs(20, seed=4)
ROWS = {"sentence1": FIRST, "sentence2": SECOND, "score": SCORES}
FEW = {name: values[:6] for name, values in ROWS.items()}
PAIRS = {"anchor": FIRST[:10], "positive": SECOND[:10]}


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model without dropout."""
    return without_dropout(tmp_path_factory.mktemp("still") / "bert")


@pytest.fixture
def model(still: Path) -> SentenceTransformer:
    return SentenceTransformer(str(still), device="cpu")


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def trainer(
    model: SentenceTransformer, folder: Path, data: Any = None, *, loss: Any = None, given: Any = None, **arguments: Any
) -> SentenceTransformerTrainer:
    made = SentenceTransformerTrainingArguments(
        **{
            "output_dir": str(folder),
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-3,
            "num_train_epochs": 2,
            "logging_steps": 1,
            "save_strategy": "no",
            "disable_tqdm": True,
            **arguments,
        }
    )
    return SentenceTransformerTrainer(
        model=model,
        args=made,
        train_dataset=ROWS if data is None else data,
        loss=losses.CosineSimilarityLoss(model) if loss is None else loss,
        **(given or {}),
    )


def logged(made: SentenceTransformerTrainer, name: str = "loss") -> list[float]:
    return [entry[name] for entry in made.state.log_history if name in entry]


# ---- log, evaluations, checkpoints ----------------------------------------------------------------------------------


def test_log(model: SentenceTransformer, tmp_path: Path) -> None:
    made = trainer(
        model,
        tmp_path,
        given={"eval_dataset": FEW},
        logging_steps=2,
        eval_strategy="steps",
        eval_steps=0.4,
        warmup_steps=0.2,
        per_device_eval_batch_size=4,
    )
    output = made.train()
    assert (output.global_step, made.state.max_steps, made.state.epoch) == (10, 10, 2.0)
    assert [entry["step"] for entry in made.state.log_history if "loss" in entry] == [2, 4, 6, 8, 10]
    assert [entry["step"] for entry in made.state.log_history if "eval_loss" in entry] == [4, 8, 10]
    assert list(made.state.log_history[0]) == ["loss", "grad_norm", "learning_rate", "epoch", "step"]
    assert made.state.log_history[0]["learning_rate"] == pytest.approx(5e-4)
    evaluation = next(entry for entry in made.state.log_history if "eval_loss" in entry)
    assert list(evaluation) == [
        *("eval_loss", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "epoch", "step")
    ]
    assert output.training_loss == pytest.approx(np.mean(logged(made)), rel=1e-6)
    assert output.metrics["train_loss"] == made.state.log_history[-1]["train_loss"]
    assert not model.training


def test_losses_that_are_not_logged_count(model: SentenceTransformer, tmp_path: Path) -> None:
    made = trainer(model, tmp_path, logging_steps=4, logging_first_step=True, num_train_epochs=1.2)
    output = made.train()
    assert output.global_step == 6
    assert [entry["step"] for entry in made.state.log_history] == [1, 4, 6]
    assert "train_loss" in made.state.log_history[-1]
    assert not (tmp_path / "checkpoint-6").exists()


def test_evaluations_do_not_change_training(model: SentenceTransformer, still: Path, tmp_path: Path) -> None:
    other = SentenceTransformer(str(still), device="cpu")
    plain = trainer(other, tmp_path / "a")
    plain.train()
    evaluator = EmbeddingSimilarityEvaluator(FIRST, SECOND, SCORES, name="dev", write_csv=False)
    made = trainer(
        model,
        tmp_path / "b",
        given={"eval_dataset": {"a": FEW, "b": ROWS}, "evaluator": [evaluator]},
        eval_strategy="epoch",
        eval_on_start=True,
        eval_delay=2,
    )
    made.train()
    assert logged(made) == logged(plain)
    assert [entry["step"] for entry in made.state.log_history if "eval_a_loss" in entry] == [0, 10]
    assert len(logged(made, "eval_dev_spearman_cosine")) == len(logged(made, "eval_b_loss")) == 2
    metrics = made.evaluate(metric_key_prefix="final")
    assert {"final_a_loss", "final_b_loss", "final_a_dev_spearman_cosine", "epoch"} <= set(metrics)
    assert metrics["final_a_dev_spearman_cosine"] == metrics["final_b_dev_spearman_cosine"]
    assert made.evaluate("a")["eval_loss"] == pytest.approx(metrics["final_a_loss"])
    assert made.evaluate(FEW)["eval_loss"] == pytest.approx(metrics["final_a_loss"])


def test_predict(model: SentenceTransformer, tmp_path: Path) -> None:
    events = Events()
    evaluator = EmbeddingSimilarityEvaluator(FIRST, SECOND, SCORES, name="dev")
    made = trainer(model, tmp_path, given={"evaluator": evaluator, "callbacks": [events]})
    measured = made.evaluate(FEW)
    before, events.seen = [*made.state.log_history], []
    output = made.predict(FEW)
    assert (output.predictions, output.label_ids) == (None, None)
    assert list(output.metrics) == [
        *("test_loss", "test_dev_pearson_cosine", "test_dev_spearman_cosine"),
        *("test_runtime", "test_samples_per_second", "test_steps_per_second"),
    ]
    for name in ("loss", "dev_spearman_cosine"):
        assert output.metrics[f"test_{name}"] == measured[f"eval_{name}"]
    assert (made.state.log_history, events.seen) == (before, ["on_predict:0"])
    with pytest.raises(ConfigError, match="by name as test_dataset"):
        made.predict({"a": FEW})


def test_best(model: SentenceTransformer, tmp_path: Path) -> None:
    made = trainer(
        model,
        tmp_path,
        given={"eval_dataset": FEW},
        learning_rate=0.05,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
    )
    made.train()
    best = min(logged(made, "eval_loss"))
    assert made.state.best_metric == best
    assert made.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{made.state.best_global_step}")
    assert made.evaluate()["eval_loss"] == pytest.approx(best, rel=1e-5)
    saved = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())
    assert saved["global_step"] == 4
    again = SentenceTransformer(made.state.best_model_checkpoint, device="cpu")
    np.testing.assert_allclose(again.encode(FIRST), model.encode(FIRST), atol=1e-5)


def test_checkpoints_of_new_bests_only(model: SentenceTransformer, tmp_path: Path) -> None:
    made = trainer(
        model,
        tmp_path,
        given={"eval_dataset": FEW},
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="best",
        metric_for_best_model="loss",
        save_total_limit=1,
    )
    made.train()
    assert [folder.name for folder in tmp_path.glob("checkpoint-*")] == [f"checkpoint-{made.state.best_global_step}"]


def test_resume(model: SentenceTransformer, still: Path, tmp_path: Path) -> None:
    whole = trainer(model, tmp_path / "whole")
    whole.train()
    first = trainer(
        SentenceTransformer(str(still), device="cpu"),
        tmp_path / "part",
        save_strategy="steps",
        save_steps=4,
        given={"callbacks": [StopAt(5)]},
    )
    first.train()
    assert first.state.global_step == 5
    second = trainer(
        SentenceTransformer(str(still), device="cpu"), tmp_path / "part", save_strategy="steps", save_steps=4
    )
    second.train(resume_from_checkpoint=True)
    assert logged(second) == logged(whole)
    with pytest.warns(UserWarning, match="are replaced"):
        trainer(SentenceTransformer(str(still), device="cpu"), tmp_path / "part").train()
    with pytest.raises(InputError, match="no checkpoint"):
        trainer(model, tmp_path / "none").train(resume_from_checkpoint=True)


# ---- callbacks ------------------------------------------------------------------------------------------------------


class StopAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        control.should_training_stop = state.global_step == self.step


class TrainerCallback:
    """As that of transformers: every event, and nothing in it."""

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        pass


class Events(TrainerCallback):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)

        def note(args: Any, state: TrainerState, control: TrainerControl, **more: Any) -> TrainerControl:
            assert more["model"] is not None
            self.seen.append(f"{name}:{state.global_step}")
            return control

        return note


def test_events(model: SentenceTransformer, tmp_path: Path) -> None:
    events = Events()
    made = trainer(
        model,
        tmp_path,
        given={"callbacks": [events], "eval_dataset": FEW},
        per_device_train_batch_size=10,
        num_train_epochs=1,
        logging_steps=2,
        eval_strategy="epoch",
        save_strategy="epoch",
    )
    made.train()
    assert events.seen == [
        *("on_init_end:0", "on_train_begin:0", "on_epoch_begin:0", "on_step_begin:0", "on_step_end:1"),
        *("on_step_begin:1", "on_step_end:2", "on_log:2", "on_epoch_end:2", "on_log:2", "on_evaluate:2", "on_save:2"),
        *("on_log:2", "on_train_end:2"),
    ]
    assert (tmp_path / "checkpoint-2").is_dir()


class EarlyStoppingCallback:
    """What that of transformers does."""

    def __init__(self, early_stopping_patience: int) -> None:
        self.patience, self.waited = early_stopping_patience, 0

    def on_evaluate(
        self, args: Any, state: TrainerState, control: TrainerControl, *, metrics: Any, **more: Any
    ) -> None:
        value = metrics[f"eval_{args.metric_for_best_model}"]
        better = state.best_metric is None or value < state.best_metric
        self.waited = 0 if better else self.waited + 1
        control.should_training_stop |= self.waited >= self.patience


def test_early_stopping(model: SentenceTransformer, tmp_path: Path) -> None:
    made = trainer(
        model,
        tmp_path,
        given={"callbacks": [EarlyStoppingCallback(2)], "eval_dataset": FEW},
        learning_rate=0.1,
        num_train_epochs=20,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=1,
        load_best_model_at_end=True,
    )
    made.train()
    measured = logged(made, "eval_loss")
    assert len(measured) < 100
    assert min(measured[-2:]) >= min(measured[:-2]) == made.state.best_metric
    assert made.state.best_global_step == measured.index(min(measured)) + 1
    assert [one.name for one in tmp_path.glob("checkpoint-*")] == [f"checkpoint-{made.state.best_global_step}"]


class ExportableState:
    """As that of transformers: a callback with a state."""


class Counting(ExportableState):
    def __init__(self, start: int = 0) -> None:
        self.start, self.count, self.began = start, start, (0, 0, 0)

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        self.began = state.global_step, len(state.log_history), self.count

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        self.count += 1

    def state(self) -> dict[str, Any]:
        return {"args": {"start": self.start}, "attributes": {"count": self.count}}


@pytest.mark.parametrize(("restores", "count"), [(True, 14), (False, 1)])
def test_states_of_callbacks(still: Path, tmp_path: Path, restores: bool, count: int) -> None:
    def model() -> SentenceTransformer:
        return SentenceTransformer(str(still), device="cpu")

    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4}
    trainer(model(), tmp_path, given={"callbacks": [Counting(10), StopAt(5)]}, **saving).train()
    saved = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())["stateful_callbacks"]
    assert saved["Counting"] == {"args": {"start": 10}, "attributes": {"count": 14}}
    assert saved["TrainerControl"]["args"]["should_training_stop"] is False
    saving |= {"restore_callback_states_from_checkpoint": restores}
    second = trainer(model(), tmp_path, given={"callbacks": [Counting(1)]}, **saving)
    second.train(resume_from_checkpoint=True)
    counting = second.callback_handler.callbacks[0]
    assert counting.began == (4, 4, count)
    assert (counting.start, counting.count) == (10 if restores else 1, count + 6)
    if restores:
        with pytest.warns(UserWarning, match="state of a callback Counting"):
            trainer(model(), tmp_path, **saving).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def test_control(model: SentenceTransformer, tmp_path: Path) -> None:
    class Ask:
        def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **more: Any) -> None:
            control.should_log = control.should_save = control.should_evaluate = state.global_step == 3

    made = trainer(
        model, tmp_path, given={"callbacks": [Ask], "eval_dataset": FEW}, logging_strategy="no", eval_strategy="epoch"
    )
    made.train()
    assert [entry["step"] for entry in made.state.log_history if "eval_loss" in entry] == [3, 5, 10]
    assert [entry["step"] for entry in made.state.log_history if "loss" in entry] == [3]
    assert (tmp_path / "checkpoint-3").is_dir()


def test_epochs_that_are_to_stop(model: SentenceTransformer, tmp_path: Path) -> None:
    class Stop:
        def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **more: Any) -> None:
            control.should_epoch_stop = state.global_step == args.max_grad_norm

    late = trainer(model, tmp_path, given={"callbacks": [Stop]}, max_grad_norm=7)
    assert late.train().global_step == 7
    assert not (tmp_path / "train_log.jsonl").exists()
    assert trainer(model, tmp_path, given={"callbacks": [Stop]}, max_grad_norm=5).train().global_step == 10
    with pytest.raises(ConfigError, match="should_epoch_stop from a callback at step 3"):
        trainer(model, tmp_path, given={"callbacks": [Stop]}, max_grad_norm=3).train()


def test_callbacks_come_and_go(model: SentenceTransformer, tmp_path: Path) -> None:
    class PrinterCallback:
        pass

    made = trainer(model, tmp_path, given={"callbacks": [PrinterCallback]})
    assert made.callback_handler.callbacks == []
    stop = StopAt(1)
    made.add_callback(stop)
    assert made.callback_handler.callback_list == "StopAt"
    assert made.pop_callback(StopAt) is stop
    assert made.pop_callback(StopAt) is None
    made.add_callback(stop)
    made.remove_callback(stop)
    with pytest.warns(UserWarning, match="two callbacks StopAt"):
        made.callback_handler.add_callback(stop), made.callback_handler.add_callback(StopAt(2))

    class Within(TrainerCallback):
        def on_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            pass

    with pytest.raises(ConfigError, match="Within with on_optimizer_step"):
        made.add_callback(Within)


# ---- losses ---------------------------------------------------------------------------------------------------------


class OwnPairs(nn.Module):
    """A loss as users write them for the reference."""

    def __init__(self, model: SentenceTransformer, *, terms: bool = False) -> None:
        super().__init__()
        self.model, self.terms = model, terms
        self.kinds: set[torch.dtype] = set()

    def forward(self, sentence_features: Any, labels: Tensor) -> Any:
        self.kinds.add(labels.dtype)
        one, two = (self.model(features)["sentence_embedding"] for features in sentence_features)
        value = nn.functional.mse_loss(torch.cosine_similarity(one, two), labels.float())
        return {"half": value * 0.5, "rest": value * 0.5} if self.terms else value

    def get_config_dict(self) -> dict[str, Any]:
        return {"terms": self.terms}


@pytest.mark.parametrize("terms", [False, True])
def test_own_loss(model: SentenceTransformer, still: Path, tmp_path: Path, terms: bool) -> None:
    other = SentenceTransformer(str(still), device="cpu")
    plain = trainer(other, tmp_path / "a", given={"eval_dataset": FEW}, eval_strategy="epoch")
    plain.train()
    made = trainer(
        model, tmp_path / "b", loss=OwnPairs(model, terms=terms), given={"eval_dataset": FEW}, eval_strategy="epoch"
    )
    made.train()
    np.testing.assert_allclose(logged(made), logged(plain), rtol=1e-4)
    np.testing.assert_allclose(logged(made, "eval_loss"), logged(plain, "eval_loss"), rtol=1e-4)
    assert len(logged(made, "half")) == (10 if terms else 0)
    assert len(logged(made, "eval_rest")) == (2 if terms else 0)
    assert made.loss.kinds == {torch.float32}


def test_own_compute_loss(model: SentenceTransformer, still: Path, tmp_path: Path) -> None:
    class Doubled(SentenceTransformerTrainer):
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            assert {"sentence1_input_ids", "sentence2_attention_mask", "label"} <= set(inputs)
            loss = super().compute_loss(model, inputs)
            features, _ = self.collect_features(inputs)
            term = model(features[0])["sentence_embedding"].square().mean()
            total = 2 * loss + 0 * term  # type: ignore[operator]
            return (total, {}) if return_outputs else total

    given: dict[str, Any] = {"eval_strategy": "epoch", "max_grad_norm": 0.0, "learning_rate": 0.0}
    plain = trainer(model, tmp_path / "a", given={"eval_dataset": FEW}, **given)
    plain.train()
    other = SentenceTransformer(str(still), device="cpu")
    made = Doubled(
        other,
        plain.args,
        ROWS,
        FEW,
        losses.CosineSimilarityLoss(other),  # type: ignore[arg-type, unused-ignore]
    )
    made.train()
    for name in ("loss", "eval_loss", "grad_norm"):
        np.testing.assert_allclose(logged(made, name), 2 * np.array(logged(plain, name)), rtol=1e-4)


def test_labels_keep_their_type(model: SentenceTransformer, tmp_path: Path) -> None:
    rows = {"a": FIRST[:8], "b": SECOND[:8], "label": [0, 1] * 4}
    made = trainer(model, tmp_path, rows, loss=OwnPairs)
    made.train()
    assert made.loss.kinds == {torch.int64}


def test_several(model: SentenceTransformer, tmp_path: Path) -> None:
    data = {"graded": ROWS, "pairs": PAIRS}
    made = trainer(
        model,
        tmp_path,
        data,
        loss={"graded": losses.CoSENTLoss(model), "pairs": losses.MultipleNegativesRankingLoss},
        given={"eval_dataset": {"pairs": PAIRS}},
        multi_dataset_batch_sampler="round_robin",
        eval_strategy="epoch",
    )
    assert made.train().global_step == 12
    assert len(logged(made, "eval_pairs_loss")) == 2
    with pytest.raises(ConfigError, match="'pairs' of train_dataset"):
        trainer(model, tmp_path, data, loss={"graded": losses.CoSENTLoss(model)})
    with pytest.raises(ConfigError, match="one train_dataset"):
        trainer(model, tmp_path, ROWS, loss={"graded": losses.CoSENTLoss(model)})


def test_one_loss_for_all_and_none(model: SentenceTransformer, tmp_path: Path) -> None:
    made = SentenceTransformerTrainer(model, train_dataset={"a": ROWS, "b": FEW}, eval_dataset=FEW)
    assert isinstance(made.loss, losses.CoSENTLoss)
    assert made.args.output_dir == "tmp_trainer"
    made.args.output_dir, made.args.eval_strategy, made.args.save_strategy = str(tmp_path), "epoch", "no"
    made.args.num_train_epochs, made.args.disable_tqdm = 1, True
    made.train()
    assert len(logged(made, "eval_loss")) == 1


def test_model_init(still: Path, tmp_path: Path) -> None:
    def make() -> SentenceTransformer:
        return SentenceTransformer(str(still), device="cpu")

    made = trainer(None, tmp_path, loss=losses.CosineSimilarityLoss, given={"model_init": make})  # type: ignore[arg-type]
    made.train()
    first, model = logged(made), made.model
    made.train()
    assert made.model is not model
    assert made.loss.model is made.model
    assert logged(made) == first
    trials = []
    given = {"model_init": lambda trial: (trials.append(trial), make())[1]}
    trainer(None, tmp_path, loss=losses.CosineSimilarityLoss, given=given)  # type: ignore[arg-type]
    assert trials == [None]


# ---- data and batches -----------------------------------------------------------------------------------------------


class IterableDataset:
    """As that of the datasets library."""

    __module__ = "datasets.iterable_dataset"
    column_names = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from ({"a": one, "b": two, "score": score} for one, two, score in zip(FIRST, SECOND, SCORES, strict=True))


class InOrder(DefaultBatchSampler):
    def __init__(self, dataset: Any, **options: Any) -> None:
        options = {name: value for name, value in options.items() if name != "sampler"}
        super().__init__(range(len(dataset["a"])), **options)


def test_streams_and_samplers_in_order(model: SentenceTransformer, still: Path, tmp_path: Path) -> None:
    ranking = {"loss": losses.MultipleNegativesRankingLoss, "max_steps": 3, "eval_strategy": "steps", "eval_steps": 3}
    ranking |= {"per_device_eval_batch_size": 3}
    stream = trainer(model, tmp_path, IterableDataset(), given={"eval_dataset": IterableDataset()}, **ranking)
    assert stream.train().global_step == 3
    other = SentenceTransformer(str(still), device="cpu")
    rows = {"a": FIRST, "b": SECOND, "score": SCORES}
    sampled = trainer(other, tmp_path, rows, given={"eval_dataset": rows}, batch_sampler=InOrder, **ranking)
    sampled.train()
    assert logged(stream) == logged(sampled)
    assert logged(stream, "eval_loss") == logged(sampled, "eval_loss")
    assert sampled.evaluate()["eval_loss"] == pytest.approx(logged(sampled, "eval_loss")[0])
    with pytest.raises(ConfigError, match="set max_steps"):
        trainer(model, tmp_path, IterableDataset())
    with pytest.raises(ConfigError, match="without streaming"):
        trainer(model, tmp_path, {"a": IterableDataset()}, max_steps=3)


def test_own_turns(model: SentenceTransformer, tmp_path: Path) -> None:
    def second_first(dataset: Any, batch_samplers: list[Any], generator: Any, seed: int) -> Any:
        ends = dataset.cumulative_sizes
        return [[ends[0] + row for row in rows] for rows in batch_samplers[1]] + list(batch_samplers[0])

    data = {"a": list(zip(FIRST[:8], SECOND[:8], strict=True)), "b": list(zip(SECOND[:5], FIRST[:5], strict=True))}
    made = trainer(
        model,
        tmp_path,
        data,
        loss=losses.MultipleNegativesRankingLoss(model),
        num_train_epochs=1,
        multi_dataset_batch_sampler=second_first,
    )
    assert made.train().global_step == 4


def test_order_of_rows(model: SentenceTransformer, still: Path, tmp_path: Path) -> None:
    def first_loss(**arguments: Any) -> float:
        made = trainer(SentenceTransformer(str(still), device="cpu"), tmp_path, max_steps=1, **arguments)
        made.train()
        return logged(made)[0]

    assert first_loss(seed=3) == first_loss(data_seed=3) != first_loss()
    dropped = trainer(model, tmp_path, FEW, dataloader_drop_last=True, num_train_epochs=1)
    assert dropped.train().global_step == 1
    with pytest.raises(ConfigError, match="no full batch of 8 rows"):
        trainer(model, tmp_path, FEW, dataloader_drop_last=True, per_device_train_batch_size=8).train()
    with pytest.raises(ConfigError, match="dataloader_drop_last=True with batch_sampler='no_duplicates'"):
        trainer(model, tmp_path, FEW, dataloader_drop_last=True, batch_sampler="no_duplicates").train()


def test_batches_to_look_at(model: SentenceTransformer, tmp_path: Path) -> None:
    rows = [{"a": one, "b": two, "score": score} for one, two, score in zip(FIRST, SECOND, SCORES, strict=True)]
    made = trainer(model, tmp_path, rows, given={"eval_dataset": rows[:6]})
    loader = made.get_train_dataloader()
    assert len(loader) == 5
    assert made.num_examples(loader) == 20
    batch = next(iter(loader))
    features, labels = made.collect_features(batch)
    assert len(features) == 2
    assert labels is not None
    assert labels.shape == (4,)
    value = made.compute_loss(model, batch)
    assert isinstance(value, Tensor)
    assert made.compute_loss(model, batch, return_outputs=True)[1] == {}
    assert len(made.get_eval_dataloader()) == 1
    assert len(made.get_test_dataloader(rows[:9])) == 2
    several = trainer(model, tmp_path, {"x": rows, "y": rows[:4]}, given={"eval_dataset": {"x": rows}})
    assert {one["dataset_name"] for one in several.get_train_dataloader()} == {"x", "y"}
    assert len(several.get_eval_dataloader("x")) == 3


# ---- optimizers -----------------------------------------------------------------------------------------------------


def losses_with(
    still: Path, folder: Path, given: Callable[[SentenceTransformer], Any], **arguments: Any
) -> list[float]:
    model = SentenceTransformer(str(still), device="cpu")
    made = trainer(model, folder, given=given(model), **arguments)
    made.train()
    assert made.get_learning_rates()
    return logged(made)


def test_optimizers(still: Path, tmp_path: Path) -> None:
    plain = losses_with(still, tmp_path, lambda model: {}, lr_scheduler_type="constant")
    by_class = losses_with(
        still,
        tmp_path,
        lambda model: {"optimizer_cls_and_kwargs": (torch.optim.AdamW, {"lr": 1e-3, "eps": 1e-8})},
        lr_scheduler_type="constant",
        learning_rate=1.0,
    )
    own = losses_with(
        still,
        tmp_path,
        lambda model: {"optimizers": (torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0), None)},
        lr_scheduler_type="constant",
    )

    def scheduled(model: SentenceTransformer) -> dict[str, Any]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
        return {"optimizers": (optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0))}

    assert by_class == plain
    np.testing.assert_allclose(own, plain, rtol=1e-3)
    np.testing.assert_allclose(losses_with(still, tmp_path, scheduled), plain, rtol=1e-3)
    sgd = losses_with(still, tmp_path, lambda model: {}, optim="sgd", lr_scheduler_type="constant")
    assert sgd[0] == plain[0]
    assert sgd[-1] != pytest.approx(plain[-1], rel=1e-3)
    other = losses_with(still, tmp_path, lambda model: {}, adam_beta2=0.9, lr_scheduler_type="constant")
    assert other[0] == plain[0]
    assert other[-1] != plain[-1]


# ---- what is refused, and files -------------------------------------------------------------------------------------


def test_refused(model: SentenceTransformer, tmp_path: Path) -> None:
    class Own(SentenceTransformerTrainer):
        def training_step(self, *arguments: Any, **options: Any) -> Any:
            raise AssertionError

    with pytest.raises(ConfigError, match="Own with a method training_step"):
        Own(model)

    class Asked(SentenceTransformerTrainer):
        def evaluate(self, *arguments: Any, **options: Any) -> Any:
            return {"eval_own": 1.0}

    with pytest.warns(UserWarning, match="Asked with a method evaluate .* training does not call"):
        asked = Asked(model)
    assert asked.evaluate() == {"eval_own": 1.0}
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path / "own"), eval_on_start=True, max_steps=1, save_strategy="no", report_to="none", use_cpu=True
    )
    with pytest.warns(UserWarning, match="training does not call"):
        run = Asked(model, arguments, FEW, FEW, losses.MultipleNegativesRankingLoss(model))
    run.train()
    assert "eval_loss" in run.state.log_history[0]
    with pytest.raises(ConfigError, match="neither model nor model_init"):
        SentenceTransformerTrainer()
    with pytest.raises(ConfigError, match="args of type str"):
        SentenceTransformerTrainer(model, "out")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="nothing to evaluate with"):
        trainer(model, tmp_path, eval_strategy="epoch")
    with pytest.raises(ConfigError, match="data_collator function"):
        trainer(model, tmp_path, given={"data_collator": lambda rows: rows})
    with pytest.raises(ConfigError, match="a scheduler and no optimizer"):
        trainer(model, tmp_path, given={"optimizers": (None, object())})
    with pytest.raises(ConfigError, match="no train_dataset"):
        SentenceTransformerTrainer(model).train()
    with pytest.raises(ConfigError, match="no eval_dataset"):
        trainer(model, tmp_path).evaluate()
    with pytest.raises(ConfigError, match="push_to_hub"):
        trainer(model, tmp_path).push_to_hub()
    with pytest.raises(ConfigError, match="hyperparameter_search"):
        trainer(model, tmp_path).hyperparameter_search()
    with pytest.raises(ConfigError, match="got str as loss"):
        trainer(model, tmp_path, loss=lambda model: "loss")
    with pytest.raises(ConfigError, match="got str as loss"):
        trainer(model, tmp_path, loss="mnrl")
    with pytest.warns(UserWarning, match="compute_metrics"):
        trainer(model, tmp_path, given={"compute_metrics": lambda one: {}})


def test_files(model: SentenceTransformer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = trainer(model, tmp_path / "out")
    output = made.train()
    made.save_model(tmp_path / "model")
    again = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(again.encode("the cat"), model.encode("the cat"), atol=1e-6)
    made.save_state()
    made.save_metrics("train", output.metrics)
    made.save_metrics("eval", {"eval_loss": 0.5})
    made.log_metrics("train", output.metrics)
    assert "train_loss" in capsys.readouterr().err
    folder = tmp_path / "out"
    assert json.loads((folder / "trainer_state.json").read_text())["global_step"] == 10
    assert {"train_loss", "eval_loss"} <= set(json.loads((folder / "all_results.json").read_text()))
    made.create_model_card("en", "mit", tags="a-tag")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert all(line in card for line in ("- en\n", "license: mit\n", "- a-tag\n"))
    assert made.get_num_trainable_parameters() == sum(one.numel() for one in model.parameters())
    assert made.is_world_process_zero()
    assert made.is_local_process_zero()
    assert isinstance(made.control, TrainerControl)


def test_lists_of_two_texts_are_reported(model: SentenceTransformer, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"anchor": ["a cat", "a dog"], "positive": ["cat", "dog"], "negative": [["the sea", "the sky"]] * 2}
    with pytest.warns(UserWarning, match="lists of two texts in the column negative"):
        trainer(
            model, tmp_path, datasets.Dataset.from_dict(rows), loss=losses.MultipleNegativesRankingLoss(model)
        ).train()
