"""The card of a model that minisbert trained, without the reference."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from card_cases import AWKWARD, pairs, scored, texts

from minisbert import SentenceTransformer, Trainer, TrainingConfig, evaluation, losses
from minisbert.card import CardFacts, parse, render
from minisbert.card.composing import citations, column_statistics, evaluations, training_logs, training_time
from minisbert.data.roles import training_rows
from minisbert.training.history import loss_text
from minisbert.training.record import EvaluationRecord, choose_examples, label_statistics, record_evaluations


@pytest.fixture
def model(tiny: Callable[[str], Path]) -> SentenceTransformer:
    return SentenceTransformer(tiny("bert"), device="cpu", truncation="count")


def train(model: SentenceTransformer, rows: Any, output: Path, **options: Any) -> CardFacts:
    config = TrainingConfig(**{"epochs": 1, "log_every": 1, **options.pop("config", {})})
    loss = options.pop("loss", None) or losses.CosineSimilarityLoss(model)
    Trainer(model, rows, loss=loss, config=config, show_progress_bar=False, **options).train()
    model.save_pretrained(output)
    return parse((output / "README.md").read_bytes().decode())


def test_card_of_a_trained_model(model: SentenceTransformer, tmp_path: Path) -> None:
    dev = scored(8)
    evaluator = evaluation.EmbeddingSimilarityEvaluator(
        dev["sentence1"], dev["sentence2"], dev["score"], name="the-dev"
    )
    facts = train(
        model,
        scored(20),
        tmp_path / "out",
        evaluator=evaluator,
        output_dir=tmp_path / "run",
        config={"eval_every": 2, "keep_best": True, "learning_rate": 1e-3, "precision": "bf16"},
    )
    assert facts.front_matter.tags[-3:] == ("generated_from_trainer", "dataset_size:20", "loss:CosineSimilarityLoss")
    assert facts.front_matter.metrics == ("pearson_cosine", "spearman_cosine")
    result = facts.front_matter.model_index[0].results[0]
    assert (result.dataset_name, result.dataset_type) == ("the dev", "the-dev")
    assert facts.evaluations[0].datasets == ("the-dev",)
    assert [metric.primary for metric in facts.evaluations[0].metrics] == [False, True]
    assert facts.non_default_hyperparameters == {
        "num_train_epochs": "1",
        "learning_rate": "0.001",
        "bf16": "True",
        "load_best_model_at_end": "True",
    }
    (dataset,) = facts.training_datasets
    assert dataset.columns == ("sentence1", "sentence2", "score")
    assert dataset.statistics_rows == dataset.size == 20
    counts = model.count_tokens(scored(20)["sentence1"])
    assert dict(dataset.statistics[0].details) == {
        "min": f"{counts.min()} tokens",
        "mean": f"{round(float(counts.mean()), 2)} tokens",
        "max": f"{counts.max()} tokens",
    }
    assert dataset.samples[0] == (scored()["sentence1"][0], scored()["sentence2"][0], str(scored()["score"][0]))
    assert facts.logs is not None
    assert facts.logs.columns == ("Epoch", "Step", "Training Loss", "the-dev_spearman_cosine")
    assert [row[1] for row in facts.logs.rows] == ["1", "2", "3"]
    (best,) = facts.logs.bold_rows
    kept = facts.evaluations[0].metrics[1].values[0]
    assert facts.logs.values("the-dev_spearman_cosine")[best] == kept == round(result.metrics[1].value or 0, 4)
    assert facts.usage is not None
    assert facts.usage.similarities is not None
    shown = model.encode(list(facts.usage.sentences))
    assert np.abs(model.similarity(shown, shown).numpy() - facts.usage.similarities).max() <= 1e-4
    assert facts.training_time is not None
    assert set(facts.versions) == {"Python", "minisbert", "Transformers", "PyTorch", "Tokenizers"}


def test_card_shows_awkward_rows(model: SentenceTransformer, tmp_path: Path) -> None:
    rows = {"query": AWKWARD[:3] + AWKWARD[4:], "answer": AWKWARD[4:] + AWKWARD[:3], "label": [0, 1] * 6 + [1]}
    facts = train(model, rows, tmp_path)
    (dataset,) = facts.training_datasets
    assert dataset.samples[0] == ("plain", f"{AWKWARD[4][:1000]}...", "0")
    assert dataset.samples[2][0] == "a | b \\| c"
    assert dataset.statistics[2].type == "int"
    assert dataset.statistics[2].details == (("0", "~46.15%"), ("1", "~53.85%"))
    assert facts.usage is not None
    assert facts.usage.has_query
    assert facts.usage.similarities is not None
    assert len(facts.usage.similarities[0]) == 3
    assert parse(render(facts)) == facts


@pytest.mark.parametrize("order", [("label", "a", "b"), ("a", "label", "b"), ("b", "a", "label")])
def test_card_shows_columns_in_the_order_of_the_data(
    model: SentenceTransformer, tmp_path: Path, order: tuple[str, ...]
) -> None:
    columns: dict[str, list[Any]] = {"a": texts(8, 1), "b": texts(8, 2), "label": [0, 1] * 4}
    (dataset,) = train(model, {name: columns[name] for name in order}, tmp_path).training_datasets
    assert dataset.columns == tuple(column.column for column in dataset.statistics) == order
    assert [column.type for column in dataset.statistics] == ["int" if name == "label" else "string" for name in order]
    assert dataset.samples[1] == tuple(str(columns[name][1]) for name in order)


def test_card_of_fit_tells_the_true_settings(model: SentenceTransformer, tmp_path: Path) -> None:
    rows = [(*pair, 1.0) for pair in zip(*pairs(16).values(), strict=True)]
    model.fit(
        [(rows, losses.CosineSimilarityLoss(model)), (rows, losses.CosineSimilarityLoss(model))],
        warmup_steps=1,
        optimizer_params={"lr": 3e-4},
        output_path=tmp_path,
        show_progress_bar=False,
    )
    facts = parse((tmp_path / "README.md").read_text(encoding="utf-8"))
    assert [dataset.name for dataset in facts.training_datasets] == ["", ""]
    assert facts.description.training_datasets == ()
    assert facts.non_default_hyperparameters == {
        "num_train_epochs": "1",
        "learning_rate": "0.0003",
        "warmup_steps": "1",
        "weight_decay": "0.01",
        "multi_dataset_batch_sampler": "round_robin",
    }


def test_saving_a_card_needs_no_network_and_changes_nothing(
    model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    random.seed(5)
    before = random.getstate()
    train(model, pairs(8, score=[0.5] * 8), tmp_path)
    assert random.getstate() == before
    assert model.truncation == "count"
    assert not model.training


def test_a_card_that_cannot_be_made_costs_no_model(
    model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> str:
        raise KeyError("nothing")

    monkeypatch.setattr("minisbert.card.composing.card_text", fail)
    model._card = None
    with pytest.warns(UserWarning, match="the model card could not be made"):
        model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()


def test_texts_that_cannot_be_embedded_leave_the_shape(
    model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("out of memory")

    Trainer(
        model, pairs(8), loss=losses.MultipleNegativesRankingLoss(model), config=TrainingConfig(epochs=1),
        show_progress_bar=False,
    ).train()  # fmt: skip
    monkeypatch.setattr(model, "encode", fail)
    model.save_pretrained(tmp_path)
    facts = parse((tmp_path / "README.md").read_text(encoding="utf-8"))
    assert facts.usage is not None
    assert facts.usage.similarities is None
    assert facts.logs is not None
    assert [row[1] for row in facts.logs.rows] == ["1"]  # the last step, which is before the first log entry


def test_untrained_model_without_a_card_gets_one(model: SentenceTransformer, tmp_path: Path) -> None:
    model._card = None
    model.save_pretrained(tmp_path, model_name="me/mine")
    facts = parse((tmp_path / "README.md").read_text(encoding="utf-8"))
    assert facts.title == "me/mine"
    assert facts.training_datasets == ()
    assert facts.hyperparameters == {}
    assert facts.architecture[2].startswith("  (1): Pooling({'embedding_dimension': 32, 'pooling_mode': 'mean'")


def test_widget_takes_short_rows() -> None:
    columns = {"a": texts(40, 1), "b": texts(40, 2)}
    chosen = choose_examples({"": columns}, seed=42)
    assert len(chosen.comparisons) == 5
    rows = sorted(zip(columns["a"], columns["b"], strict=True), key=lambda row: len("".join(row)))
    shortest = {len("".join(row)) for row in rows[:5]}
    for source, others in chosen.comparisons:
        assert len(others) == 3
        place = columns["a"].index(source)
        assert any(len(source + sentence) in shortest for sentence in others), place
    assert chosen.texts[0] == chosen.comparisons[-1][0]
    assert choose_examples({"": columns}, seed=42) == chosen
    assert choose_examples({"": columns}, seed=43) != chosen


def test_too_few_rows_give_no_widget() -> None:
    assert choose_examples({"": {"a": ["x"] * 4, "b": ["y"] * 4}}, seed=42).comparisons == ()
    single = choose_examples({"": {"a": ["w", "xx", "yyy", "zzzz", "", "vvvvvv", "uuuuuuu", "ttttttttt"]}}, seed=42)
    assert single.comparisons == ()
    five = choose_examples({"": {"a": [str(10**n) for n in range(8)]}}, seed=1)
    ((source, others),) = five.comparisons
    assert source == "1"
    assert set(others) == {"100000", "1000000", "10000000"}


@pytest.mark.parametrize("name", ["ContrastiveTensionLoss", "DenoisingAutoEncoderLoss"])
def test_widget_shows_no_damaged_text_and_none_twice(name: str, model: SentenceTransformer, tmp_path: Path) -> None:
    if name == "DenoisingAutoEncoderLoss":
        pytest.importorskip("transformers")
        rows = [(text[:3], text) for text in texts(40, 1)]
    else:
        rows = [(text, text) for text in texts(40, 1)]
    facts = train(model, rows, tmp_path, loss=getattr(losses, name)(model), config={"batch_size": 8})
    whole = {text for _, text in rows}
    assert facts.front_matter.widget
    for example in facts.front_matter.widget:
        shown = [example.source_sentence, *example.sentences]
        assert set(shown) <= whole
        assert len(set(shown)) == len(shown)


def test_classes_are_shown_with_their_names(model: SentenceTransformer, tmp_path: Path) -> None:
    names = ["neutral", "entailment", "contradiction"]
    rows = [(*row, names[number % 3]) for number, row in enumerate(zip(texts(24, 1), texts(24, 2), strict=True))]
    facts = train(model, rows, tmp_path, loss=losses.SoftmaxLoss(model, 32, 3), config={"batch_size": 8})
    (data,) = facts.training_datasets
    shown = ["0 (contradiction)", "1 (entailment)", "2 (neutral)"]
    assert data.statistics[2].details == tuple((one, "~33.33%") for one in shown)
    assert [sample[2] for sample in data.samples] == [shown[number] for number in (2, 1, 0)]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0000"), (1.23456, "1.2346"), (0.01, "0.0100"), (0.0012345, "0.00123"), (1.23456e-7, "1.23e-07")],
)
def test_a_small_loss_is_printed_with_its_digits(value: float, text: str) -> None:
    assert loss_text(value) == text


def test_label_statistics() -> None:
    def details(labels: list[float], kind: Any) -> tuple[tuple[str, str], ...]:
        return column_statistics(label_statistics("s", labels, kind)).details

    assert details([0.0, 0.126, 1.0], "float") == (("min", "0.0"), ("mean", "0.38"), ("max", "1.0"))
    assert details([1.0, 1.0], "int") == (("1", "100.00%"),)
    assert details([1.0, 0.0, 1.0], "bool") == (("False", "~33.33%"), ("True", "~66.67%"))


@pytest.mark.parametrize(
    ("labels", "kind"),
    [([0, 1], "int"), ([0.0, 1.0], "float"), ([True, False], "bool"), ([0, 0.5], "float"), (["0", "1"], "int")],
)
def test_labels_keep_their_type(labels: list[Any], kind: str) -> None:
    rows = training_rows({"a": ["x", "y"], "b": ["x", "y"], "label": labels})
    assert rows.label_type == kind
    assert training_rows({"a": ["x", "y"], "b": ["x", "y"], "label": labels}, scale=(0, 1)).label_type == "float"


def test_logs_have_a_row_for_each_step() -> None:
    entries: list[dict[str, float]] = [
        {"step": 2, "epoch": 0.25, "loss": 0.123456},
        {"step": 2, "epoch": 0.25, "eval_a": 0.5, "eval_b": 0.75},
        {"step": 3, "epoch": 0.375, "loss": 0.5},
        {"step": 4, "epoch": 0.5, "loss": 0.25, "grad_norm": 1.0},
    ]
    logs = training_logs(entries, log_every=2, primary=["b"], best_step=2)
    assert logs is not None
    assert logs.columns == ("Epoch", "Step", "Training Loss", "b")
    assert logs.rows == (("0.25", "2", "0.1235", "0.75"), ("0.5", "4", "0.25", "-"))
    assert logs.bold_rows == (0,)
    assert training_logs([], log_every=1, primary=[], best_step=None) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.14, "3.1 seconds"), (90, "1.5 minutes"), (5400, "1.5 hours"), (86400 * 2, "2.0 days")]
)
def test_training_time(seconds: float, text: str) -> None:
    assert training_time(seconds).training == text


def test_evaluators_of_one_kind_share_a_table() -> None:
    def of(name: str, kind: str = "A") -> EvaluationRecord:
        return EvaluationRecord(
            "Some Task", kind, name, f"{name}_x", {}, {f"{name}_x": 0.12345, f"{name}_y": float("nan")}
        )

    found = evaluations([of("dev"), of("test"), of("dev", "B")])
    assert [one.datasets for one in found] == [("dev", "test"), ("dev",)]
    assert [(metric.name, metric.values, metric.primary) for metric in found[0].metrics] == [
        ("x", (0.1235, 0.1235), True),
        ("y", ("nan", "nan"), False),
    ]


def test_results_of_several_evaluators_are_told_apart() -> None:
    class Part(evaluation.Evaluator):
        description = "Some Task"

        def __call__(self, *arguments: Any, **options: Any) -> dict[str, float]:
            raise NotImplementedError

    class Several(Part):
        evaluators = (Part("dev"), Part(""))

    found = record_evaluations(Several(), {"dev_x": 1.0, "x": 2.0})
    assert [(one.name, one.metrics) for one in found] == [("dev", {"dev_x": 1.0}), ("", {"x": 2.0})]
    assert record_evaluations(None, {}) == ()


def test_parts_of_several_evaluators_keep_their_own_results(model: SentenceTransformer) -> None:
    def part(name: str, seed: int) -> evaluation.Evaluator:
        rows = scored(8 + seed)
        return evaluation.EmbeddingSimilarityEvaluator(*rows.values(), name=name)

    triplets = evaluation.TripletEvaluator(texts(8, 5), texts(8, 6), texts(8, 7))
    inner = evaluation.SequentialEvaluator([part("dev", 0), triplets], main_score_function=max)
    outer = evaluation.SequentialEvaluator([inner, part("", 1)])
    metrics = outer(model)
    found = record_evaluations(outer, metrics)
    assert [(one.evaluator, one.name) for one in found] == [
        ("EmbeddingSimilarityEvaluator", "dev"),
        ("TripletEvaluator", ""),
        ("EmbeddingSimilarityEvaluator", ""),
    ]
    assert [dict(one.metrics) for one in found] == [part("dev", 0)(model), triplets(model), part("", 1)(model)]
    (alone,) = record_evaluations(outer.evaluators[1], metrics)
    assert alone.metrics == metrics


def test_an_evaluator_of_another_library_may_have_no_name() -> None:
    class Foreign:
        primary_metric = "x"

        def __call__(
            self, model: SentenceTransformer, output_path: Any = None, epoch: float = -1, steps: int = -1
        ) -> dict[str, float]:
            return {"x": 1.0, "y": 0.5}

    both = evaluation.SequentialEvaluator([Foreign(), evaluation.TripletEvaluator(["q"], ["a"], ["b"], name="dev")])
    metrics = {"x": 1.0, "y": 0.5, "dev_cosine_accuracy": 1.0}
    first, second = record_evaluations(both, metrics)
    assert first == EvaluationRecord("Foreign", "Foreign", "", "x", {}, {"x": 1.0, "y": 0.5})
    assert (second.name, second.metrics) == ("dev", {"dev_cosine_accuracy": 1.0})


def test_results_that_were_written_over_are_not_told(model: SentenceTransformer) -> None:
    parts = [evaluation.EmbeddingSimilarityEvaluator(*scored(8 + more).values()) for more in range(2)]
    several = evaluation.SequentialEvaluator(parts)
    with pytest.warns(UserWarning, match="give them names"):
        metrics = several(model)
    (told,) = record_evaluations(several, metrics)
    assert told.metrics == parts[1](model) != parts[0](model)


def test_losses_with_one_paper_share_a_citation() -> None:
    names = [one.names for one in citations(["SoftmaxLoss", "MultipleNegativesRankingLoss", "CosineSimilarityLoss"])]
    assert names == [("Sentence Transformers", "SoftmaxLoss"), ("MultipleNegativesRankingLoss",)]
