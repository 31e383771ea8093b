"""Evaluators of code for the reference: positional arguments, subclasses, what they log, warn of and print."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fixed_model import FixedModel
from nano import nano_beir
from training_cases import pairs

from minisbert import InputExample, SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert import evaluation as below
from minisbert.compat import evaluation
from minisbert.errors import ConfigError, InputError

FIRST, SECOND = ["a", "b", "c", "d"], ["e", "f", "g", "h"]


class Score(evaluation.SentenceEvaluator):
    """A user's own evaluator, as the reference shows it."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, model: Any, output_path: Any = None, epoch: float = -1, steps: int = -1) -> Any:
        self.calls.append((output_path, epoch, steps))
        return self.value


class Shouting(evaluation.BinaryClassificationEvaluator):
    """A user's evaluator that embeds in its own way."""

    def embed_inputs(self, model: Any, sentences: Any, **kwargs: Any) -> Any:
        return list(super().embed_inputs(model, [text.upper() for text in sentences], **kwargs))


@pytest.fixture
def model(tiny: Callable[[str], Path]) -> SentenceTransformer:
    return SentenceTransformer(tiny("bert"), device="cpu")


def trained(model: SentenceTransformer, evaluator: Any) -> dict[str, float]:
    config = TrainingConfig(epochs=1, batch_size=8)
    run = Trainer(model, pairs(16), loss=losses.CosineSimilarityLoss(), evaluator=evaluator, config=config)
    return run.train().entries[-1]


def test_an_evaluator_that_gives_a_number(model: SentenceTransformer) -> None:
    score = Score(0.25)
    assert trained(model, score)["eval_evaluator"] == 0.25
    assert score.calls == [(None, 1.0, 2)]
    assert model.evaluate(score) == 0.25
    several = evaluation.SequentialEvaluator([score, Score(0.5)], main_score_function=max)
    assert several(FixedModel()) == {"evaluator_0": 0.25, "evaluator_1": 0.5, "sequential_score": 0.5}
    assert trained(model, [score, several])["eval_sequential_score"] == 0.5
    assert evaluation.SequentialEvaluator([])(FixedModel()) == {"sequential_score": 0.0}


@pytest.mark.parametrize("junk", [None, "high", [1.0]])
def test_an_evaluator_that_gives_no_number(model: SentenceTransformer, junk: Any) -> None:
    with pytest.raises(ConfigError, match="from Score; expected numbers by name"):
        trained(model, Score(junk))


def test_an_evaluator_that_gives_numbers_by_name(model: SentenceTransformer) -> None:
    score = Score({"dev_f1": 0.5, "dev_other": 0.25})
    score.primary_metric = "dev_f1"
    got = trained(model, score)
    assert (got["eval_dev_f1"], got["eval_dev_other"]) == (0.5, 0.25)


def test_the_base() -> None:
    base = evaluation.BaseEvaluator()
    assert base.greater_is_better
    assert base.primary_metric is None
    assert base.get_config_dict() == {}
    with pytest.raises(NotImplementedError):
        base(FixedModel())
    base.primary_metric = "f1"
    assert base.prefix_name_to_metrics({"f1": np.float32(0.5), "note": "x"}, "dev") == {"dev_f1": 0.5, "dev_note": "x"}
    assert base.primary_metric == "dev_f1"
    base.prefix_name_to_metrics({"f1": 1}, "dev")
    assert base.primary_metric == "dev_f1"
    assert Score(1).description == "Score"
    assert evaluation.SentenceEvaluator is evaluation.BaseEvaluator


def test_metrics_go_to_the_card() -> None:
    calls: list[Any] = []
    model = FixedModel()
    model.model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *given: calls.append(given))
    evaluator = evaluation.TripletEvaluator(FIRST, SECOND, FIRST, name="dev")
    metrics = evaluator(model, None, 1, 20)
    assert calls == [(evaluator, metrics, 1, 20)]
    evaluator.store_metrics_in_model_card_data(object(), metrics)  # a model without a card


def test_positional_arguments() -> None:
    similarity = evaluation.EmbeddingSimilarityEvaluator(FIRST, SECOND, [1, 2, 3, 4.0], 7, "dot", ["dot"], "dev")
    assert (similarity.batch_size, similarity.main_similarity, similarity.name) == (7, "dot", "dev")
    binary = evaluation.BinaryClassificationEvaluator(FIRST, SECOND, [1, 0, 1, 0], "dev", 9, True)
    assert (binary.name, binary.batch_size, binary.show_progress_bar) == ("dev", 9, True)
    translation = evaluation.TranslationEvaluator(FIRST, SECOND, False, 5, "dev", True)
    assert (translation.batch_size, translation.print_wrong_matches) == (5, True)
    model = FixedModel()
    binary(model)
    assert model.options["batch_size"] == 9


def test_rows_of_examples() -> None:
    rows = [InputExample(texts=[a, b, "n"], label=float(a in "ac")) for a, b in zip(FIRST, SECOND, strict=True)]
    for kind in ("BinaryClassificationEvaluator", "EmbeddingSimilarityEvaluator"):
        made = getattr(evaluation, kind).from_input_examples(rows, name="dev")
        plain = getattr(below, kind)(FIRST, SECOND, [1.0, 0.0, 1.0, 0.0], name="dev")
        assert made(FixedModel()) == plain(FixedModel())
    triplets = evaluation.TripletEvaluator.from_input_examples(rows, margin=0.1)
    assert (triplets.anchors, triplets.positives, triplets.negatives) == (FIRST, SECOND, ["n"] * 4)
    assert triplets.get_config_dict() == {"margin": dict.fromkeys(("cosine", "dot", "manhattan", "euclidean"), 0.1)}


def test_texts_are_embedded_by_the_evaluator() -> None:
    model = FixedModel()
    got = Shouting(FIRST, SECOND, [1, 0, 1, 0], truncate_dim=4)(model)
    assert sorted(model.calls[0][1]) == sorted(text.upper() for text in FIRST + SECOND)
    assert model.options["truncate_dim"] == 4
    upper = [[text.upper() for text in texts] for texts in (FIRST, SECOND)]
    assert got == below.BinaryClassificationEvaluator(*upper, [1, 0, 1, 0], truncate_dim=4)(FixedModel())


def test_kinds_and_prompts() -> None:
    model = FixedModel()
    queries, corpus = {"q": "a"}, {"1": "b", "0": "c"}
    evaluator = evaluation.InformationRetrievalEvaluator(
        queries, corpus, {"q": {"0"}}, query_prompt="ask: ", corpus_prompt_name="document"
    )
    evaluator(model)
    assert model.calls == [("query", ["a"]), ("document", ["c", "b"])]
    assert (model.options["prompt_name"], model.options["prompt"]) == ("document", None)
    assert evaluator.get_config_dict() == {"query_prompt": "ask: ", "corpus_prompt_name": "document"}
    evaluation.TripletEvaluator(FIRST, SECOND, FIRST)(model)
    assert [kind for kind, _ in model.calls[2:]] == ["query", "document"]


def test_results_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        evaluation.TripletEvaluator(FIRST, SECOND, FIRST, name="dev")(FixedModel(), None, 1, 20)
    assert all(record.name.startswith("minisbert.compat.evaluation") for record in caplog.records)
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "Triplet on dev, epoch 1, step 20",
        "dev_cosine_accuracy",
    ]


def test_wrong_matches_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    evaluation.TranslationEvaluator(["a", "b"], ["b", "a"], print_wrong_matches=True)(FixedModel())
    assert "source 0 is most similar to target 1 instead of target 0" in capsys.readouterr().out
    evaluation.TranslationEvaluator(["a", "b"], ["b", "a"])(FixedModel())
    assert not capsys.readouterr().out


def test_ids_that_are_not_there() -> None:
    with pytest.warns(UserWarning, match="names 1 queries that are not there, such as 'other': they are left out"):
        evaluation.InformationRetrievalEvaluator({"q": "a"}, {"d": "b"}, {"q": {"d"}, "other": {"d"}})
    with pytest.warns(UserWarning, match="names 1 documents that are not there, such as 'no': they are counted as not"):
        evaluator = evaluation.InformationRetrievalEvaluator({"q": "a"}, {"d": "b"}, {"q": {"d", "no"}})
    assert evaluator(FixedModel())["cosine_recall@1"] == 0.5
    with pytest.raises(InputError, match="names the document 'no'"):
        below.InformationRetrievalEvaluator({"q": "a"}, {"d": "b"}, {"q": {"d", "no"}})


class Best(evaluation.InformationRetrievalEvaluator):
    """A user's evaluator with metrics of its own."""

    def compute_metrics(self, queries_result_list: list[Any]) -> Any:
        return {**super().compute_metrics(queries_result_list), "best@k": {1: queries_result_list[0][0]["score"]}}

    def output_scores(self, scores: Any) -> None:
        self.shown = list(scores)


def test_metrics_of_a_subclass() -> None:
    arguments = ({"q": "a"}, {"d": "b", "c": "a"}, {"q": {"d"}})
    evaluator, plain = Best(*arguments), evaluation.InformationRetrievalEvaluator(*arguments)
    got = evaluator(FixedModel())
    assert got.pop("cosine_best@1") == pytest.approx(1)
    assert got == plain(FixedModel())
    assert evaluator.shown[-1] == "best@k"


def test_score_functions_of_each_model() -> None:
    model = FixedModel()
    evaluator = evaluation.InformationRetrievalEvaluator({"q": "a"}, {"d": "b"}, {"q": {"d"}})
    assert next(iter(evaluator(model))) == "cosine_accuracy@1"
    assert evaluator.primary_metric == "cosine_ndcg@10"
    model.similarity_fn_name = "dot"
    assert next(iter(evaluator(model))) == "dot_accuracy@1"
    assert evaluator.primary_metric == "dot_ndcg@10"


@pytest.mark.parametrize("label", [0, 1])
def test_one_class(label: int) -> None:
    with pytest.warns(UserWarning, match=f"all 4 labels are {label}; expected both"):
        got = evaluation.BinaryClassificationEvaluator(FIRST, SECOND, [label] * 4)(FixedModel())
    assert (got["cosine_accuracy"], got["cosine_f1"], got["cosine_ap"]) == (1.0, label, label)


def test_old_names_of_arguments(caplog: pytest.LogCaptureFixture) -> None:
    evaluator = evaluation.TripletEvaluator(FIRST, SECOND, FIRST, main_distance_function="dot")
    assert evaluator.main_similarity_function == "dot"
    samples: Any = [
        {"query": "a", "positive": "b", "negative": ["c", "d"]},
        {"query": "a", "positive": [], "negative": ["c"]},
    ]
    reranking = evaluation.RerankingEvaluator(samples, mrr_at_k=3)
    assert reranking.csv_file == "RerankingEvaluator_results_@3.csv"
    assert len(reranking.samples) == 1
    assert [record.message.split()[2] for record in caplog.records] == ["main_distance_function", "mrr_at_k"]
    assert reranking.compute_metrices(FixedModel()) == reranking.compute_metrics_individual(FixedModel())


def test_classes_of_a_data_loader(model: SentenceTransformer) -> None:
    rows = [
        InputExample(texts=[a, b], label=number % 3) for number, (a, b) in enumerate(zip(FIRST, SECOND, strict=True))
    ]
    loader = torch.utils.data.DataLoader(rows, batch_size=3, drop_last=True)  # type: ignore[arg-type, var-annotated]
    classifier = losses.SoftmaxLoss(model, 32, 3)
    got = evaluation.LabelAccuracyEvaluator(loader, "dev", classifier)(model)
    assert got == below.LabelAccuracyEvaluator(rows[:3], name="dev", softmax_model=classifier)(model)


def test_data_sets_of_nano_beir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = str(nano_beir(tmp_path / "data"))
    stored: list[Any] = []
    model = FixedModel()
    model.model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *given: stored.append(given[0].name))
    got = evaluation.NanoBEIREvaluator(["nq"], folder)(model)
    assert got == below.NanoBEIREvaluator(["nq"], folder)(FixedModel())
    assert stored == ["NanoNQ"]  # the means of one data set say nothing new
    evaluator = evaluation.NanoBEIREvaluator(["nq", "SciFact"], folder, corpus_prompts="text: ")
    evaluator(model)
    assert stored[1:] == ["NanoNQ", "NanoSciFact", "NanoBEIR_mean"]
    assert [one.corpus_prompt for one in evaluator.evaluators] == ["text: "] * 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: evaluation.NanoBEIREvaluator(["nowhere"]), "got the data set 'nowhere'"),
        (lambda: evaluation.NanoBEIREvaluator([]), "got no dataset_names"),
        (lambda: evaluation.NanoBEIREvaluator(["nq"], query_prompts={}), "got query_prompts without 'nq'"),
        (lambda: evaluation.TripletEvaluator(["a"], ["b"], ["c", "d"]), "got 1 anchors, 1 positives, 2 negatives"),
        (lambda: evaluation.TripletEvaluator(["a"], ["b"], ["c"], margin={"sum": 1}), "got a margin for 'sum'"),
        (lambda: evaluation.BinaryClassificationEvaluator(["a"], ["b"], [2]), r"labels\[0\] is 2"),
        (lambda: evaluation.EmbeddingSimilarityEvaluator(["a"], ["b"], []), "got 1 sentences1, 1 sentences2, 0 scores"),
        (
            lambda: evaluation.InformationRetrievalEvaluator({"q": "a"}, {"d": "b"}, {"q": {"d"}}, ndcg_at_k=[]),
            "no ndcg",
        ),
    ],
)
def test_wrong_arguments(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((ConfigError, InputError), match=message):
        make()
