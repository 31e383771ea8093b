"""The loss on held-out rows, the best weights by it, and early stopping."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_cases import log, pairs

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.errors import ConfigError, InputError
from minisbert.evaluation import EmbeddingSimilarityEvaluator
from minisbert.training.history import TrainingHistory
from minisbert.training.selection import note_evaluation


@pytest.fixture
def model(tiny: Callable[[str], Path]) -> SentenceTransformer:
    return SentenceTransformer(tiny("bert"), device="cpu")


def trainer(model: SentenceTransformer, **options: Any) -> Trainer:
    options = {"loss": losses.CosineSimilarityLoss(), "show_progress_bar": False, **options}
    config = TrainingConfig(**{"batch_size": 6, "max_steps": 8, "learning_rate": 1e-3, **options.pop("config", {})})
    return Trainer(model, options.pop("data", None) or pairs(), config=config, **options)


def loss_on(model: SentenceTransformer, rows: dict[str, Any]) -> float:
    """The mean squared error of all similarities, which does not depend on batches."""
    scores = model.similarity_pairwise(model.encode(rows["a"]), model.encode(rows["b"]))
    return float((scores.double() - torch.tensor(rows["label"], dtype=torch.float64)).square().mean())


def test_the_loss_on_held_out_rows(model: SentenceTransformer, tmp_path: Path) -> None:
    held_out = pairs(13)  # in batches of 8 and 5, which weigh as much as they have rows
    run = trainer(model, eval_data=held_out, output_dir=tmp_path, config={"eval_every": 3, "log_every": 4})
    history = run.train()
    found = {entry["step"]: entry["eval_loss"] for entry in history.entries if "eval_loss" in entry}
    assert list(found) == [3, 6, 8]
    assert found[8] == pytest.approx(loss_on(model, held_out), rel=1e-5)
    assert history.best_metric == min(found.values())
    assert found[history.best_step or 0] == history.best_metric
    assert {entry["step"]: entry.get("eval_loss") for entry in log(tmp_path) if "eval_loss" in entry} == found
    assert model.training_record is not None
    assert model.training_record.metrics == {"loss": found[8]}
    assert model.training_record.evaluations == ()
    assert not model.training


def test_evaluating_changes_no_weights(tiny: Callable[[str], Path]) -> None:
    weights = []
    for options in ({}, {"eval_data": pairs(13), "config": {"eval_every": 1}}):
        model = SentenceTransformer(tiny("bert"), device="cpu")
        trainer(model, **options).train()
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_in_mixed_precision(model: SentenceTransformer, precision: str, without_native: None) -> None:
    held_out = pairs(13)
    (entry,) = [
        entry
        for entry in trainer(model, eval_data=held_out, config={"precision": precision}).train().entries
        if "eval_loss" in entry
    ]
    assert entry["eval_loss"] == pytest.approx(loss_on(model, held_out), rel=0.05)


def test_several_data_sets_with_their_losses(model: SentenceTransformer) -> None:
    texts = {name: values for name, values in pairs(13).items() if name != "label"}
    of = {"scored": losses.CosineSimilarityLoss(), "texts": losses.MultipleNegativesRankingLoss()}
    data, held_out = {"scored": pairs(), "texts": texts}, {"texts": texts, "scored": pairs(9)}
    entry = trainer(model, data=data, eval_data=held_out, loss=of).train().entries[-1]
    assert list(entry) == ["step", "epoch", "eval_texts_loss", "eval_scored_loss"]
    assert entry["eval_scored_loss"] == pytest.approx(loss_on(model, held_out["scored"]), rel=1e-5)
    assert entry["eval_texts_loss"] > 0


def test_the_best_loss_decides(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    held_out = pairs(13)
    for seed in range(20):  # until the last loss is not the best one
        model = SentenceTransformer(tiny("bert"), device="cpu")
        config = {"eval_every": 1, "keep_best": True, "learning_rate": 1e-1, "seed": seed}
        history = trainer(model, eval_data=held_out, output_dir=tmp_path / str(seed), config=config).train()
        found = [entry["eval_loss"] for entry in history.entries if "eval_loss" in entry]
        assert min(found) == history.best_metric
        assert loss_on(model, held_out) == pytest.approx(min(found), rel=1e-5)
        if found[-1] != min(found):
            return
    pytest.fail("the last loss was the best one in each run")


@pytest.mark.parametrize(
    ("settings", "values", "expected"),
    [
        ({}, [3, 2, 2, 1, 1, 1, 0], 6),
        ({"early_stopping_patience": 1}, [3, 2, 2, 1, 1, 1, 0], 3),
        ({"early_stopping_patience": 3}, [3, 4, 5, 2, 3, 3, 3, 0], 7),
        # A small gain moves the best, and still counts as none.
        ({"early_stopping_threshold": 0.5}, [3, 2.8, 2.6, 0], 3),
        ({"early_stopping_threshold": 0.5}, [3, 2.8, 2.2, 2.1, 2.0, 0], 5),
        ({}, [math.nan, math.nan, math.nan, 0], 3),
        ({}, [math.nan, math.nan, 1, math.nan, 0.5, 2, 2], 7),
        ({"greater_is_better": True}, [1, 2, 2, 1, 3], 4),
        ({"metric_for_best_model": "f1"}, [1, 2, 2, 1, 3], 4),
        ({"metric_for_best_model": "eval_f1", "greater_is_better": False}, [1, 2, 2, 1, 3], 3),
    ],
)
def test_when_a_run_stops(settings: dict[str, Any], values: list[float], expected: int) -> None:
    """After this many evaluations, as transformers counts them."""
    config = TrainingConfig(**{"eval_every": 1, "early_stopping_patience": 2, **settings})
    name = (config.metric_for_best_model or "loss").removeprefix("eval_")
    history, count = TrainingHistory(), 0
    while not history.stopped_early:
        note_evaluation(history, config, {name: values[count]}, None, step=count)
        count += 1
    assert count == expected


@pytest.mark.parametrize("patience", [1, 2])
def test_early_stopping(model: SentenceTransformer, tmp_path: Path, patience: int) -> None:
    held_out = pairs(13)
    config = {"eval_every": 1, "early_stopping_patience": patience, "learning_rate": 5e-2, "log_every": 50}
    run = trainer(model, eval_data=held_out, output_dir=tmp_path, config={**config, "keep_best": True})
    history = run.train()
    assert history.stopped_early
    assert history.steps == (history.best_step or 0) + patience < 8
    assert history.entries[-1]["loss"] == pytest.approx(history.train_loss)  # of all steps, logged at the end
    assert loss_on(model, held_out) == pytest.approx(history.best_metric, rel=1e-5)


def test_a_loss_does_not_hide_the_metrics_of_an_evaluator(model: SentenceTransformer, tmp_path: Path) -> None:
    held_out = pairs(13)
    judge = EmbeddingSimilarityEvaluator(held_out["a"], held_out["b"], held_out["label"])
    history = trainer(model, eval_data=held_out, evaluator=judge, output_dir=tmp_path).train()
    metrics = {key.removeprefix("eval_"): value for key, value in history.entries[-1].items() if key[:5] == "eval_"}
    assert list(metrics) == ["loss", "pearson_cosine", "spearman_cosine"]
    assert history.best_metric == metrics["spearman_cosine"]
    assert model.training_record is not None
    (evaluation,) = model.training_record.evaluations
    assert list(evaluation.metrics) == ["pearson_cosine", "spearman_cosine"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": {"keep_best": True}, "output_dir": "x"}, "it needs an evaluator or eval_data to compare"),
        ({"config": {"early_stopping_patience": 1, "eval_every": 1}}, "it needs an evaluator or eval_data: pass one"),
        (
            {
                "config": {"early_stopping_patience": 1, "eval_every": 1},
                "eval_data": {"one": pairs(4), "two": pairs(5)},
            },
            "got metric_for_best_model=None; expected one of the metrics of this run: set it to 'one_loss', 'two_loss'",
        ),
        ({"config": {"metric_for_best_model": "f1"}, "eval_data": pairs(4)}, "got metric_for_best_model='f1'; expec"),
        ({"eval_data": {"a": ["x"], "b": ["y"]}}, "no labels"),
        ({"eval_data": {"one": pairs(4), "two": {"a": ["x"], "b": ["y"]}}}, "data set 'two': .*no labels"),
        (
            {"data": {"x": pairs(), "y": pairs()}, "loss": {"x": losses.CosineSimilarityLoss()}, "eval_data": pairs(3)},
            "one evaluation data set; expected a dict: pass eval_data by name",
        ),
        (
            {
                "data": {"x": pairs()},
                "loss": {"x": losses.CosineSimilarityLoss()},
                "eval_data": {"x": pairs(3), "z": pairs(3)},
            },
            r"data sets \['x', 'z'\]; expected the same names",
        ),
    ],
)
def test_what_is_refused(model: SentenceTransformer, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, InputError), match=message):
        trainer(model, **options)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"early_stopping_patience": 2}, "one evaluation, at the end; expected several: set eval_every or eval_each"),
        ({"early_stopping_patience": 0, "eval_every": 1}, "expected a whole number from 1"),
        ({"early_stopping_threshold": -1}, "expected a number from 0"),
        ({"metric_for_best_model": ""}, "expected a name"),
        ({"greater_is_better": "yes"}, "expected True or False"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(**settings)


def test_a_metric_that_the_evaluator_does_not_give(model: SentenceTransformer) -> None:
    rows = pairs(4)
    judge = EmbeddingSimilarityEvaluator(rows["a"], rows["b"], rows["label"])
    with pytest.raises(ConfigError, match="expected one of the metrics of this run: set it to 'pearson_cosine', 'spe"):
        trainer(model, evaluator=judge, config={"metric_for_best_model": "accuracy", "eval_every": 1}).train()


def test_other_rows_to_evaluate_on_are_another_run(model: SentenceTransformer, tmp_path: Path) -> None:
    config = {"save_every": 4}
    trainer(model, eval_data=pairs(5), output_dir=tmp_path, config=config).train()
    with pytest.raises(ConfigError, match="the rows, their order, or the losses differ"):
        trainer(model, eval_data=pairs(6), output_dir=tmp_path, config=config).train(resume=True)


def test_the_mean_is_over_rows(model: SentenceTransformer) -> None:
    """With a loss that depends on the batch, batches count by their rows."""

    class Size(losses.Loss):
        def forward(self, embeddings: Any, labels: Any = None) -> torch.Tensor:
            return 0 * embeddings[0].sum() + len(embeddings[0])

    entry = trainer(model, loss=Size(), eval_data=pairs(19), config={"eval_batch_size": 8}).train().entries[-1]
    assert entry["eval_loss"] == np.float32((8 * 8 + 8 * 8 + 3 * 3) / 19)


@pytest.mark.parametrize("settings", [{}, {"replay": "6.2"}, {"early_stopping_patience": 9}], ids=str)
def test_evaluations_may_change_on_the_way(
    settings: dict[str, Any], tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    def run(*, resume: bool, **more: Any) -> None:
        model = SentenceTransformer(tiny("bert"), device="cpu")
        config = {"save_every": 4, "eval_every": 2, **settings, **more}
        trainer(model, eval_data=pairs(5), output_dir=tmp_path, config=config).train(resume=resume)

    run(resume=False)
    if not settings:
        run(resume=True, eval_every=3, eval_batch_size=2)
        return
    with pytest.raises(ConfigError, match="eval_every was 2 and is 3"):  # they draw random numbers, or end the run
        run(resume=True, eval_every=3)


def test_an_evaluation_leaves_losses_in_their_mode(tiny: Callable[[str], Path]) -> None:
    """A copy of the model stays without dropout, as in the reference, which never puts it in training mode."""
    model = SentenceTransformer(tiny("bert"), device="cpu")
    loss = losses.ContrastiveTensionLossInBatchNegatives(model)
    seen: list[bool] = []
    loss.copied.register_forward_hook(lambda module, *_: seen.append(module.training))
    rows = [(text,) for text in ("one", "two", "three")]
    config = TrainingConfig(max_steps=2, eval_every=1, batch_size=3)
    Trainer(model, rows, loss=loss, config=config, eval_data=rows, show_progress_bar=False).train()
    assert seen == [False] * 4
