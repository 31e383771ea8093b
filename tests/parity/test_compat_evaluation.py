"""The evaluators of compat have the reference's signatures, and give its metrics, names, order and files."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common import scored_pairs
from evaluator_cases import CASES, FUNCTIONS, NAMES, SCORES, TRIPLETS, difference, files, labelled, retrieval, texts
from fixed_model import FixedModel
from nano import nano_beir

from minisbert import SentenceTransformer, losses
from minisbert.compat import evaluation

pytestmark = pytest.mark.parity
EVERY = sorted(set(evaluation.__all__) - {"SimilarityFunction"})
PUBLIC = ("__init__", "__call__")
# The reference takes anything there, which hides what it takes.
NOT_COMPARED = {("NanoBEIREvaluator", "store_metrics_in_model_card_data")}


@pytest.fixture(scope="module")
def reference() -> Any:
    """The reference's evaluators."""
    return pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")


@pytest.fixture(scope="module")
def models(tiny: Callable[[str], Path]) -> tuple[SentenceTransformer, Any]:
    """The same model in both libraries."""
    package = pytest.importorskip("sentence_transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = package.SentenceTransformer(str(tiny("bert")), device="cpu")
    return SentenceTransformer(tiny("bert"), device="cpu"), theirs


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    """Name, kind and default of each parameter; functions as defaults by name."""
    found = inspect.signature(function).parameters.values()
    return [(one.name, one.kind, getattr(one.default, "__name__", one.default)) for one in found]


@pytest.mark.parametrize("name", EVERY)
def test_signatures(name: str, reference: Any) -> None:
    ours, theirs = getattr(evaluation, name), getattr(reference, name)
    methods = [one for one in dir(theirs) if one in PUBLIC or not one.startswith("_")]
    for method in methods:
        expected = getattr(theirs, method)
        assert hasattr(ours, method), f"{name} has no {method}"
        if callable(expected) and not inspect.isclass(expected) and (name, method) not in NOT_COMPARED:
            assert parameters(getattr(ours, method)) == parameters(expected), f"{name}.{method}"


@pytest.mark.parametrize("name", NAMES)
def test_the_same_embeddings_give_the_same_metrics_and_files(
    name: str, reference: Any, compare: Callable[..., None], tmp_path: Path
) -> None:
    largest, count = 0.0, 0
    for case, (wanted, arguments, options) in enumerate(CASES):
        if wanted != name:
            continue
        ours, theirs = getattr(evaluation, name)(*arguments, **options), getattr(reference, name)(*arguments, **options)
        assert ours.csv_headers == theirs.csv_headers
        assert ours.csv_file == theirs.csv_file
        assert list(ours.get_config_dict().items()) == list(theirs.get_config_dict().items())
        assert ours.description == theirs.description
        places = tmp_path / f"ours{case}", tmp_path / f"theirs{case}"
        for epoch, steps in ((-1, -1), (0.5, 20), (1.0, 40)):
            got = ours(FixedModel(), str(places[0]), epoch, steps)
            expected = theirs(FixedModel(), str(places[1]), epoch, steps)
            largest, count = max(largest, difference(got, expected)), count + 1
            assert ours.primary_metric == theirs.primary_metric
            assert ours.csv_headers == theirs.csv_headers
        assert files(places[0]) == files(places[1])
        assert len(files(places[0])) == 1 + (len(SCORES) if options.get("write_predictions") else 0)
    compare(f"compat {name}: metrics on the same embeddings", largest, 0, cases=count)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_from_disk(
    name: str, reference: Any, models: tuple[SentenceTransformer, Any], compare: Callable[..., None]
) -> None:
    chosen: dict[str, Any] = {
        "TripletEvaluator": {"similarity_fn_names": FUNCTIONS},
        "MSEEvaluator": {"truncate_dim": 16},  # as many as the teacher has
        "MSEEvaluatorFromDataFrame": {"truncate_dim": 16},
    }
    arguments = next(arguments for wanted, arguments, _ in CASES if wanted == name)
    if name == "InformationRetrievalEvaluator":
        arguments = retrieval(repeats=0)  # embeddings differ in the last bits: what is equal there would not be
    options = chosen.get(name, {})
    got = getattr(evaluation, name)(*arguments, **options)(models[0])
    expected = getattr(reference, name)(*arguments, **options)(models[1])
    compare(f"compat {name}: metrics of a model", difference(got, expected), 1e-6)
    assert not any(math.isnan(value) for value in got.values())


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 4, "similarity_fn_names": FUNCTIONS, "name": "dev"},
        {"main_similarity": "dot", "similarity_fn_names": ["cosine", "dot"], "truncate_dim": 8},
        {"precision": "int8"},
        {"precision": "uint8", "main_similarity": "euclidean"},
        {"precision": "binary"},
        {"precision": "ubinary", "name": "bits"},
        {"precision": "float32"},
    ],
)
def test_similarity(
    options: dict[str, Any],
    reference: Any,
    models: tuple[SentenceTransformer, Any],
    tmp_path: Path,
    compare: Callable[..., None],
) -> None:
    first, second, scores = scored_pairs(120)
    ours = evaluation.EmbeddingSimilarityEvaluator(first, second, scores, **options)
    theirs = reference.EmbeddingSimilarityEvaluator(first, second, scores, **options)
    got, expected = ours(models[0], str(tmp_path / "a")), theirs(models[1], str(tmp_path / "b"))
    bound = 1e-6 if "int8" not in str(options.get("precision")) else 1e-3  # a number may fall into the next step
    compare("compat EmbeddingSimilarityEvaluator: metrics of a model", difference(got, expected), bound)
    assert (ours.primary_metric, ours.csv_file, ours.csv_headers, ours.get_config_dict()) == (
        theirs.primary_metric,
        theirs.csv_file,
        theirs.csv_headers,
        theirs.get_config_dict(),
    )
    assert files(tmp_path / "a").keys() == files(tmp_path / "b").keys()


def test_ids_that_are_not_there(reference: Any, compare: Callable[..., None]) -> None:
    queries, corpus, relevant = retrieval()
    some = next(iter(relevant))
    listed: dict[str, Any] = {query: sorted(documents) for query, documents in relevant.items()}
    listed[some] = [*listed[some], "nowhere", "elsewhere", "d1", "d1"]
    listed |= {"q39": ["nowhere"], "nobody": ["d1"]}
    with pytest.warns(UserWarning, match="relevant_docs names"):
        ours = evaluation.InformationRetrievalEvaluator(queries, corpus, listed)
    theirs = reference.InformationRetrievalEvaluator(queries, corpus, listed)
    got, expected = ours(FixedModel()), theirs(FixedModel())
    compare("compat InformationRetrievalEvaluator: ids that are not there", difference(got, expected), 0)


def test_a_corpus_that_is_embedded_already(reference: Any, compare: Callable[..., None]) -> None:
    queries, corpus, relevant = retrieval()
    embeddings = FixedModel().encode(list(corpus.values()), convert_to_tensor=True)
    results = []
    for library in (evaluation, reference):
        evaluator = library.InformationRetrievalEvaluator(queries, corpus, relevant, 64)
        assert evaluator.corpus == list(corpus.values())
        results.append(evaluator(FixedModel(), corpus_embeddings=embeddings))
        results.append(evaluator(FixedModel(), corpus_model=FixedModel(whole=True)))
    compare("compat InformationRetrievalEvaluator: a given corpus", difference(results[0], results[2]), 0)
    compare("compat InformationRetrievalEvaluator: a given corpus", difference(results[1], results[3]), 0)


def test_metrics_of_hits(reference: Any) -> None:
    queries, corpus, relevant = retrieval()
    ours, theirs = (
        library.InformationRetrievalEvaluator(queries, corpus, relevant, score_functions=SCORES)
        for library in (evaluation, reference)
    )
    draw = np.random.default_rng(0)
    hits = [
        [{"corpus_id": str(key), "score": float(draw.integers(0, 9))} for key in draw.choice(ours.corpus_ids, 20)]
        for _ in ours.queries
    ]
    got, expected = ours.compute_metrics(hits), theirs.compute_metrics(hits)
    assert got == {metric: pytest.approx(values, abs=1e-12) for metric, values in expected.items()}
    assert ours.get_corpus_id_ranks().tolist() == theirs.get_corpus_id_ranks().tolist()
    assert ours.compute_dcg_at_k([1, 0, 1, 1], 3) == pytest.approx(theirs.compute_dcg_at_k([1, 0, 1, 1], 3))
    assert ours.compute_metrices(FixedModel()) == theirs.compute_metrices(FixedModel())


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_one_class(label: int, reference: Any, compare: Callable[..., None]) -> None:
    first, second, _ = labelled(20)
    arguments = (first, second, [label] * 20)
    got, expected = (
        library.BinaryClassificationEvaluator(*arguments, similarity_fn_names=["cosine", "manhattan"])(FixedModel())
        for library in (evaluation, reference)
    )
    compare("compat BinaryClassificationEvaluator: one class", difference(got, expected), 0)


def test_thresholds(reference: Any) -> None:
    draw = np.random.default_rng(0)
    ours, theirs = evaluation.BinaryClassificationEvaluator, reference.BinaryClassificationEvaluator
    for high in (True, False):
        scores = draw.normal(size=40).round(1).astype(np.float32)
        labels = draw.integers(0, 2, 40)
        assert ours.find_best_acc_and_threshold(scores, labels, high) == pytest.approx(
            theirs.find_best_acc_and_threshold(scores, labels, high)
        )
        assert ours.find_best_f1_and_threshold(scores, labels, high) == pytest.approx(
            theirs.find_best_f1_and_threshold(scores, labels, high)
        )


def test_pairs_of_unknown_ids(reference: Any, compare: Callable[..., None]) -> None:
    sentences = {f"s{number}": text for number, text in enumerate(dict.fromkeys(texts(80, seed=7)))}
    pairs = [("s1", "s2"), ("s2", "s9"), ("s4", "s4"), ("s5", "nowhere"), ("s11", "s12")]
    for closure in (False, True):
        with pytest.warns(UserWarning, match="not in sentences_map"):
            ours = evaluation.ParaphraseMiningEvaluator(sentences, [*pairs, ("a", "b")], None, closure)
        theirs = reference.ParaphraseMiningEvaluator(sentences, pairs, None, closure)
        assert ours.total_num_duplicates == theirs.total_num_duplicates
        got, expected = ours(FixedModel()), theirs(FixedModel())
        compare("compat ParaphraseMiningEvaluator: ids that are not there", difference(got, expected), 0)


def test_no_paraphrases(reference: Any) -> None:
    sentences = {"a": "one", "b": "two", "c": "three"}
    with pytest.warns(UserWarning, match="every metric is 0"):
        got = evaluation.ParaphraseMiningEvaluator(sentences, [])(FixedModel())
    assert got == reference.ParaphraseMiningEvaluator(sentences, [])(FixedModel())


def test_a_score_function_of_one_query(reference: Any, compare: Callable[..., None]) -> None:
    samples = next(arguments for name, arguments, _ in CASES if name == "RerankingEvaluator")
    for batched in (True, False):
        results = [
            library.RerankingEvaluator(
                *samples, similarity_fct=lambda query, documents: documents @ query.reshape(-1), **options
            )(FixedModel())
            for library in (evaluation, reference)
            for options in [{"use_batched_encoding": batched, "mrr_at_k": 5}]
        ]
        compare("compat RerankingEvaluator: one score per document", difference(*results), 0)


def test_classes(
    reference: Any, models: tuple[SentenceTransformer, Any], tmp_path: Path, compare: Callable[..., None]
) -> None:
    package = pytest.importorskip("sentence_transformers")
    theirs_of = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    classifiers = []
    for model, library in zip(models, (losses, theirs_of), strict=True):
        torch.manual_seed(0)
        classifiers.append(library.SoftmaxLoss(model, 32, 3))
    first, second, _ = labelled(60)
    rows = [
        package.InputExample(texts=[a, b], label=number % 3)
        for number, (a, b) in enumerate(zip(first, second, strict=True))
    ]
    for name, last in (("", False), ("dev", True)):
        loader = torch.utils.data.DataLoader(rows, batch_size=8, drop_last=last)
        mine = evaluation.LabelAccuracyEvaluator(loader, name, classifiers[0])
        other = reference.LabelAccuracyEvaluator(loader, name, classifiers[1])
        places = tmp_path / f"ours{name}", tmp_path / f"theirs{name}"
        got = mine(models[0], str(places[0]))
        expected = other(models[1], str(places[1]))
        compare("compat LabelAccuracyEvaluator: metrics of a model", difference(got, expected), 0)
        assert files(places[0]) == files(places[1])
        assert (mine.primary_metric, mine.description) == (other.primary_metric, other.description)


def test_nano_beir(
    reference: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compare: Callable[..., None]
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = str(nano_beir(tmp_path / "data"))
    for options in (
        {},
        {"truncate_dim": 5, "query_prompts": {"nq": "ask: ", "SciFact": ""}},
        {"aggregate_key": "best", "aggregate_fn": max, "corpus_prompts": "text: ", "main_score_function": "cosine"},
    ):
        ours, theirs = (
            library.NanoBEIREvaluator(["nq", "SciFact"], folder, **options) for library in (evaluation, reference)
        )
        places = tmp_path / f"ours{len(str(options))}", tmp_path / f"theirs{len(str(options))}"
        got, expected = ours(FixedModel(), str(places[0])), theirs(FixedModel(), str(places[1]))
        compare("compat NanoBEIREvaluator: metrics on the same embeddings", difference(got, expected), 0)
        assert files(places[0]) == files(places[1])
        assert len(files(places[0])) == 3
        assert ours.primary_metric == theirs.primary_metric
        assert ours.csv_headers == theirs.csv_headers
        assert ours.get_config_dict() == theirs.get_config_dict()
        assert ours.description == theirs.description


def test_evaluators_in_turn(reference: Any, compare: Callable[..., None]) -> None:
    for options in ({}, {"main_score_function": sum}):
        results = []
        for library in (evaluation, reference):
            parts = [
                library.TripletEvaluator(*TRIPLETS, name="three"),
                lambda model, output_path=None, epoch=-1, steps=-1: 0.25,
                library.BinaryClassificationEvaluator(*labelled(150)),
            ]
            evaluator = library.SequentialEvaluator(parts, **options)
            results.append(evaluator(FixedModel()))
            assert (evaluator.primary_metric, evaluator.description) == ("sequential_score", "Sequential")
        compare("compat SequentialEvaluator: metrics on the same embeddings", difference(*results), 0)
