"""The evaluators give the reference's metrics, names, order and files."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixed_model import FixedModel
from nano import nano_beir
from tiny_models import WORDS

from minisbert import SentenceTransformer, evaluation, losses
from minisbert.similarity import cos_sim, dot_score, euclidean_sim

pytestmark = pytest.mark.parity
FUNCTIONS = ["cosine", "dot", "euclidean", "manhattan"]


def texts(count: int, *, seed: int = 0) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, draw.integers(1, 12))) for _ in range(count)]


def labelled(count: int) -> tuple[list[str], list[str], list[int]]:
    """Pairs that often share a text, with labels."""
    draw = np.random.default_rng(count)
    pool = texts(count)
    first, second = (list(draw.choice(pool, count)) for _ in range(2))
    return first, second, draw.integers(0, 2, count).tolist()


def retrieval(*, repeats: int = 50) -> tuple[dict[str, str], dict[str, str], dict[str, set[str]]]:
    """So many documents occur twice; some queries have nothing to find."""
    draw = np.random.default_rng(1)
    queries = {f"q{number}": text for number, text in enumerate(texts(40, seed=2))}
    documents = list(dict.fromkeys(texts(280, seed=3)))
    numbers = draw.permutation(len(documents) + repeats)
    corpus = {f"d{number}": documents[number % len(documents)] for number in numbers}
    relevant = {query: set(map(str, draw.choice(list(corpus), draw.integers(0, 6)))) for query in queries}
    return queries, corpus, relevant


def samples() -> list[dict[str, Any]]:
    draw = np.random.default_rng(4)
    pool = texts(400, seed=5)
    found = []
    for number in range(50):
        positive = list(dict.fromkeys(draw.choice(pool, draw.integers(0, 4))))
        negative = [text for text in dict.fromkeys(draw.choice(pool, draw.integers(0, 20))) if text not in positive]
        found.append({"query": pool[number], "positive": positive, "negative": negative})
    return found


def paraphrases() -> tuple[dict[str, str], list[tuple[str, str]]]:
    draw = np.random.default_rng(6)
    sentences = {f"s{number}": text for number, text in enumerate(dict.fromkeys(texts(300, seed=7)))}
    pairs = {tuple(map(str, draw.choice(list(sentences), 2, replace=False))) for _ in range(150)}
    return sentences, sorted(pairs)  # type: ignore[arg-type]


def as_dictionary(pairs: list[tuple[str, str]]) -> dict[str, dict[str, bool]]:
    """Pairs as the reference can read them: it looks up pairs that are not there, and trips over False."""
    found: dict[str, dict[str, bool]] = defaultdict(lambda: defaultdict(bool))
    for first, second in pairs:
        found[first][second] = True
    return found


def parallel() -> list[dict[str, str]]:
    """Rows in three languages, of which some lack one."""
    columns = {name: texts(60, seed=seed) for seed, name in enumerate(("en", "de", "fr"), 11)}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    rows[3]["de"], rows[5]["fr"], rows[8]["en"] = "", "  ", ""
    return rows


PARALLEL = parallel()
# Many are their own translations, and some texts occur twice.
TRANSLATIONS = ([*texts(90, seed=14), "one", "one"], [*texts(90, seed=14)[:50], *texts(42, seed=15)])
TRIPLETS = tuple(texts(120, seed=seed) for seed in (8, 9, 10))
SCORES = {"dot": dot_score, "cosine": cos_sim, "euclid": euclidean_sim}
CASES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("TripletEvaluator", TRIPLETS, {}),
    ("TripletEvaluator", TRIPLETS, {"name": "dev", "similarity_fn_names": FUNCTIONS}),
    ("TripletEvaluator", TRIPLETS, {"margin": 0.1, "truncate_dim": 5}),
    ("TripletEvaluator", TRIPLETS, {"margin": {"dot": 1}, "similarity_fn_names": ["dot", "manhattan"]}),
    ("TripletEvaluator", TRIPLETS, {"main_similarity_function": "euclidean"}),
    ("BinaryClassificationEvaluator", labelled(150), {}),
    ("BinaryClassificationEvaluator", labelled(151), {"name": "dev", "similarity_fn_names": FUNCTIONS}),
    ("BinaryClassificationEvaluator", labelled(30), {"similarity_fn_names": ["manhattan"], "truncate_dim": 2}),
    ("InformationRetrievalEvaluator", retrieval(), {}),
    ("InformationRetrievalEvaluator", retrieval(), {"name": "dev", "corpus_chunk_size": 64, "truncate_dim": 2}),
    (
        "InformationRetrievalEvaluator",
        retrieval(),
        {
            "score_functions": SCORES,
            "accuracy_at_k": [7, 2],
            "precision_recall_at_k": [4],
            "mrr_at_k": [1, 500],
            "ndcg_at_k": [3, 5, 500],
            "map_at_k": [2, 10],
            "corpus_chunk_size": 100,
            "write_predictions": True,
        },
    ),
    ("InformationRetrievalEvaluator", retrieval(), {"score_functions": SCORES, "main_score_function": "dot"}),
    ("RerankingEvaluator", (samples(),), {}),
    ("RerankingEvaluator", (samples(),), {"name": "dev", "at_k": 3, "use_batched_encoding": False}),
    ("RerankingEvaluator", ({1: samples()[3], 2: samples()[4]},), {"similarity_fct": dot_score, "truncate_dim": 7}),
    ("ParaphraseMiningEvaluator", paraphrases(), {}),
    ("ParaphraseMiningEvaluator", paraphrases(), {"name": "dev", "add_transitive_closure": True}),
    ("ParaphraseMiningEvaluator", paraphrases(), {"top_k": 30, "max_pairs": 3000, "truncate_dim": 3}),
    ("ParaphraseMiningEvaluator", (paraphrases()[0], None, as_dictionary(paraphrases()[1])), {}),
    ("MSEEvaluator", (*TRIPLETS[:2], FixedModel()), {}),
    ("MSEEvaluator", (*TRIPLETS[:2], FixedModel()), {"name": "dev", "truncate_dim": 3}),
    ("MSEEvaluatorFromDataFrame", (PARALLEL, FixedModel(), [("en", "de"), ("de", "fr")]), {}),
    ("MSEEvaluatorFromDataFrame", (PARALLEL, FixedModel(), [("fr", "en")]), {"name": "dev", "truncate_dim": 5}),
    ("TranslationEvaluator", TRANSLATIONS, {}),
    ("TranslationEvaluator", TRANSLATIONS, {"name": "dev", "truncate_dim": 2}),
]
FIRST, SECOND, LABELS = labelled(50)
CARD_CASES: list[dict[str, Any]] = [{}, {"truncate_dim": 8}, {"precision": "int8", "truncate_dim": 16}]
NAMES = sorted({name for name, _, _ in CASES})


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


def difference(ours: dict[str, float], theirs: dict[str, float]) -> float:
    assert list(ours) == list(theirs)
    assert all(type(value) is float for value in (*ours.values(), *theirs.values()))
    return max(abs(ours[name] - theirs[name]) for name in theirs)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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
