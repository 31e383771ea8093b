"""The evaluators give the reference's metrics, names, order and files."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluator_cases import CASES, FUNCTIONS, NAMES, SCORES, TRIPLETS, difference, files, labelled, retrieval
from fixed_model import FixedModel
from nano import nano_beir

from minisbert import SentenceTransformer, evaluation, losses

pytestmark = pytest.mark.parity
FIRST, SECOND, LABELS = labelled(50)
CARD_CASES: list[dict[str, Any]] = [{}, {"truncate_dim": 8}, {"precision": "int8", "truncate_dim": 16}]


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
        return SentenceTransformer(tiny("bert"), device="cpu"), package.SentenceTransformer(
            str(tiny("bert")), device="cpu"
        )


@pytest.mark.parametrize("name", NAMES)
def test_the_same_embeddings_give_the_same_metrics_and_files(
    name: str, reference: Any, compare: Callable[..., None], tmp_path: Path
) -> None:
    largest, count = 0.0, 0
    for case, (wanted, arguments, options) in enumerate(CASES):
        if wanted != name:
            continue
        ours = getattr(evaluation, name)(*arguments, **options)
        theirs = getattr(reference, name)(*arguments, **options)
        assert ours.get_config_dict() == theirs.get_config_dict()
        assert list(ours.get_config_dict()) == list(theirs.get_config_dict())
        assert ours.description == theirs.description
        places = tmp_path / f"ours{case}", tmp_path / f"theirs{case}"
        for epoch, steps in ((-1, -1), (0.5, 20), (1.0, 40)):
            got = ours(FixedModel(), places[0], epoch=epoch, steps=steps)
            expected = theirs(FixedModel(), str(places[1]), epoch=epoch, steps=steps)
            largest, count = max(largest, difference(got, expected)), count + 1
            assert ours.primary_metric == theirs.primary_metric
            assert ours.primary_metric in got
        assert any(got.values())
        assert files(places[0]) == files(places[1])
        assert len(files(places[0])) == 1 + (len(SCORES) if options.get("write_predictions") else 0)
    compare(f"{name}: metrics on the same embeddings", largest, 0, cases=count)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_from_disk(
    name: str, reference: Any, models: tuple[SentenceTransformer, Any], compare: Callable[..., None]
) -> None:
    """Embeddings differ in the last bits here, so no text is in the corpus twice: what is equal would not be."""
    chosen: dict[str, Any] = {
        "InformationRetrievalEvaluator": {"corpus_chunk_size": 64, "ndcg_at_k": [5, 10]},
        "TripletEvaluator": {"similarity_fn_names": FUNCTIONS},
        "MSEEvaluator": {"truncate_dim": 16},  # as many as the teacher has
        "MSEEvaluatorFromDataFrame": {"truncate_dim": 16},
    }
    options = chosen.get(name, {})
    arguments = next(arguments for wanted, arguments, _ in CASES if wanted == name)
    if name == "InformationRetrievalEvaluator":
        arguments = retrieval(repeats=0)
    ours, theirs = models
    got = getattr(evaluation, name)(*arguments, **options)(ours)
    expected = getattr(reference, name)(*arguments, **options)(theirs)
    compare(f"{name}: metrics of a model", difference(got, expected), 1e-6)
    assert not any(math.isnan(value) for value in got.values())


@pytest.mark.parametrize("options", CARD_CASES)
def test_what_the_card_says_of_similarity(options: dict[str, Any], reference: Any) -> None:
    ours = evaluation.EmbeddingSimilarityEvaluator(FIRST, SECOND, LABELS, **options)
    theirs = reference.EmbeddingSimilarityEvaluator(FIRST, SECOND, LABELS, **options)
    assert ours.get_config_dict() == theirs.get_config_dict() == options


def test_classes(reference: Any, tiny: Callable[[str], Path], tmp_path: Path, compare: Callable[..., None]) -> None:
    package, theirs_of = (
        pytest.importorskip(f"sentence_transformers{name}") for name in ("", ".sentence_transformer.losses")
    )
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = package.SentenceTransformer(str(tiny("bert")), device="cpu")
    ours = SentenceTransformer(tiny("bert"), device="cpu")
    classifiers = []
    for model, library in ((ours, losses), (theirs, theirs_of)):
        torch.manual_seed(0)
        classifiers.append(library.SoftmaxLoss(model, 32, 3))
    first, second, _ = labelled(60)
    rows = list(zip(first, second, (number % 3 for number in range(60)), strict=True))
    loader = torch.utils.data.DataLoader(
        [package.InputExample(texts=[a, b], label=label) for a, b, label in rows], batch_size=8
    )
    for name in ("", "dev"):
        mine = evaluation.LabelAccuracyEvaluator(rows, name=name, softmax_model=classifiers[0])
        other = reference.LabelAccuracyEvaluator(loader, name, softmax_model=classifiers[1])
        places = tmp_path / f"ours{name}", tmp_path / f"theirs{name}"
        got, expected = mine(ours, places[0]), other(theirs, str(places[1]))
        compare("LabelAccuracyEvaluator: metrics of a model", difference(got, expected), 0)
        assert files(places[0]) == files(places[1])
        assert (mine.primary_metric, mine.description) == (other.primary_metric, other.description)


def test_nano_beir(
    reference: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compare: Callable[..., None]
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = nano_beir(tmp_path / "data")
    for options in (
        {},
        {"truncate_dim": 5, "query_prompts": {"nq": "ask: ", "SciFact": ""}},
        {"aggregate_key": "best", "aggregate_fn": max, "corpus_prompts": "text: "},
    ):
        names = ["nq", "SciFact"]
        ours = evaluation.NanoBEIREvaluator(names, str(folder), **options)  # type: ignore[arg-type]
        theirs = reference.NanoBEIREvaluator(names, str(folder), **options)
        places = tmp_path / f"ours{len(str(options))}", tmp_path / f"theirs{len(str(options))}"
        got, expected = ours(FixedModel(), places[0]), theirs(FixedModel(), str(places[1]))
        compare("NanoBEIREvaluator: metrics on the same embeddings", difference(got, expected), 0, cases=len(got))
        assert files(places[0]) == files(places[1])
        assert len(files(places[0])) == 3
        assert ours.primary_metric == theirs.primary_metric
        assert ours.get_config_dict() == theirs.get_config_dict()
        assert ours.description == theirs.description


def test_evaluators_in_turn(reference: Any, compare: Callable[..., None]) -> None:
    sequential = pytest.importorskip("sentence_transformers.base.evaluation").SequentialEvaluator
    parts = [
        [library.TripletEvaluator(*TRIPLETS, name="three"), library.BinaryClassificationEvaluator(*labelled(150))]
        for library in (evaluation, reference)
    ]
    largest = 0.0
    for options in ({}, {"main_score_function": sum}):
        ours = evaluation.SequentialEvaluator(parts[0], **options)
        theirs = sequential(parts[1], **options)
        largest = max(largest, difference(ours(FixedModel()), theirs(FixedModel())))
        assert ours.primary_metric == theirs.primary_metric
        assert ours.description == theirs.description
        assert ours.get_config_dict() == theirs.get_config_dict()
    compare("SequentialEvaluator: metrics on the same embeddings", largest, 0, cases=2)
