"""Reranking, paraphrase mining and several evaluators in turn: values by hand, files, and what is refused."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixed_model import FixedModel, PlacedModel, scored
from hypothesis import given, settings
from hypothesis import strategies as st

from minisbert.errors import ConfigError, InputError, InputTypeError, MinisbertError
from minisbert.evaluation import (
    Evaluator,
    ParaphraseMiningEvaluator,
    RerankingEvaluator,
    SequentialEvaluator,
    TripletEvaluator,
)
from minisbert.similarity import dot_score

# ---- reranking ------------------------------------------------------------------------------------------------------

MODEL = scored(a=5, b=4, c=3, d=2, e=1)
SAMPLES = [
    {"query": "q", "positive": ["b", "d"], "negative": ["a", "c", "e"]},
    {"query": "q", "positive": "a", "negative": ["b"]},
    {"query": "q", "positive": [], "negative": ["b"]},
    {"query": "q", "positive": ["a"], "negative": []},
]


@pytest.mark.parametrize("batched", [True, False])
def test_reranking_by_hand(batched: bool, tmp_path: Path) -> None:
    options = {"similarity_fct": dot_score, "name": "dev", "use_batched_encoding": batched}
    evaluator = RerankingEvaluator(SAMPLES, at_k=3, **options)
    got = evaluator(MODEL, tmp_path / "new", epoch=2, steps=9)
    assert got == {
        "dev_map": pytest.approx(((1 / 2 + 2 / 4) / 2 + 1) / 2),
        "dev_mrr@3": pytest.approx((1 / 2 + 1) / 2),
        "dev_ndcg@3": pytest.approx((1 / math.log2(3) / (1 + 1 / math.log2(3)) + 1) / 2),
    }
    assert all(type(value) is float for value in got.values())
    assert evaluator.primary_metric == "dev_ndcg@3"
    assert evaluator.description == "Reranking"
    (file,) = (tmp_path / "new").iterdir()
    assert file.name == "RerankingEvaluator_dev_results_@3.csv"
    header, row, _ = file.read_bytes().decode().split("\r\n")
    assert header == "epoch,steps,MAP,MRR@3,NDCG@3"
    assert row == ",".join(["2", "9", *map(str, got.values())])


def test_reranking_beyond_k() -> None:
    sample = {"query": "q", "positive": ["e"], "negative": list("abcd")}
    got = RerankingEvaluator([sample], at_k=4, similarity_fct=dot_score)(MODEL)
    assert got == {"map": pytest.approx(0.2), "mrr@4": 0.0, "ndcg@4": 0.0}


def test_equal_scores_share_their_places() -> None:
    model = scored(a=1, b=1)
    got = RerankingEvaluator([{"query": "q", "positive": ["a"], "negative": ["b"]}], similarity_fct=dot_score)(model)
    assert got == {"map": 0.5, "mrr@10": 1.0, "ndcg@10": pytest.approx((1 + 1 / math.log2(3)) / 2)}


def test_how_texts_are_encoded() -> None:
    model = scored(a=2, b=1)
    samples = {"first": {"query": "q", "positive": ["a"], "negative": ["b"]}}
    RerankingEvaluator(samples, truncate_dim=1)(model)
    assert model.calls == [("query", ["q"]), ("document", ["a", "b"])]
    assert model.options["truncate_dim"] == 1


def test_what_the_card_says_of_reranking() -> None:
    assert RerankingEvaluator(SAMPLES).get_config_dict() == {"at_k": 10}
    assert RerankingEvaluator(SAMPLES, at_k=5, truncate_dim=8).get_config_dict() == {"at_k": 5, "truncate_dim": 8}


@pytest.mark.parametrize(
    ("samples", "options", "kind", "parts"),
    [
        ([], {}, InputError, ["0 samples", "at least one"]),
        (SAMPLES[2:], {}, InputError, ["2 samples, none", "both"]),
        ([{"query": "q", "positive": ["a"]}], {}, InputError, ["samples[0]", "['query', 'positive']", "negative"]),
        ([("q", "a", "b")], {}, InputError, ["samples[0]", "tuple"]),
        ([{"query": 1, "positive": ["a"], "negative": ["b"]}], {}, InputTypeError, ["samples[0]['query']", "int"]),
        (
            [{"query": "q", "positive": ["a", None], "negative": ["b"]}],
            {},
            InputTypeError,
            ["samples[0]['positive'][1] is None"],
        ),
        (SAMPLES, {"at_k": 0}, ConfigError, ["at_k=0", "at least 1"]),
    ],
)
def test_samples_that_cannot_be_evaluated(
    samples: Any, options: dict[str, Any], kind: type[MinisbertError], parts: list[str]
) -> None:
    with pytest.raises(kind) as caught:
        RerankingEvaluator(samples, **options)
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_a_function_that_gives_no_score_for_each_pair() -> None:
    def pairwise(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * b).sum(-1)

    with pytest.raises(InputError, match=r"shape \(5,\) for 1 query and 5 documents"):
        RerankingEvaluator(SAMPLES, similarity_fct=pairwise)(MODEL)


# ---- paraphrase mining ----------------------------------------------------------------------------------------------

PLACES = {"a": [1.0, 0.0], "b": [0.9, 0.1], "c": [0.0, 1.0], "d": [0.1, 0.9], "e": [0.7, 0.7]}
TEXTS = {name.upper(): name for name in PLACES}


def test_paraphrases_by_hand(tmp_path: Path) -> None:
    # The two closest pairs are A-B and C-D, then B-E and D-E, then A-E and C-E.
    evaluator = ParaphraseMiningEvaluator(TEXTS, [("B", "A"), ("E", "A"), ("A", "B")], name="dev")
    got = evaluator(PlacedModel(PLACES), tmp_path / "new", epoch=1.0)
    close, middle = 0.9 / math.sqrt(0.82), 1 / math.sqrt(0.82 * 2)
    assert got == {
        "dev_average_precision": pytest.approx((1 / 2 + 2 / 6) / 2),
        "dev_f1": pytest.approx(1 / 2),
        "dev_precision": pytest.approx(1 / 2),
        "dev_recall": pytest.approx(1 / 2),
        "dev_threshold": pytest.approx((close + middle) / 2, abs=1e-6),
    }
    assert all(type(value) is float for value in got.values())
    assert evaluator.primary_metric == "dev_average_precision"
    assert evaluator.description == "Paraphrase Mining"
    (file,) = (tmp_path / "new").iterdir()
    assert file.name == "paraphrase_mining_evaluation_dev_results.csv"
    header, row, _ = file.read_bytes().decode().split("\r\n")
    assert header == "epoch,steps,precision,recall,f1,threshold,average_precision"
    columns = ("precision", "recall", "f1", "threshold", "average_precision")
    assert row == ",".join(["1.0", "-1", *(str(got[f"dev_{column}"]) for column in columns)])


def test_the_transitive_closure() -> None:
    pairs = [("A", "B"), ("C", "B"), ("D", "E")]
    evaluator = ParaphraseMiningEvaluator(TEXTS, pairs, add_transitive_closure=True)
    assert evaluator.duplicates == {(0, 1), (0, 2), (1, 2), (3, 4)}
    assert ParaphraseMiningEvaluator(TEXTS, pairs).duplicates == {(0, 1), (1, 2), (3, 4)}


@given(st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda pair: pair[0] != pair[1]), min_size=1))
def test_the_closure_is_reachability(pairs: set[tuple[int, int]]) -> None:
    texts = {number: str(number) for number in range(8)}
    reach = np.eye(8, dtype=bool)
    for first, second in pairs:
        reach[first, second] = reach[second, first] = True
    for _ in range(3):
        reach = reach @ reach
    got = ParaphraseMiningEvaluator(texts, list(pairs), add_transitive_closure=True).duplicates
    assert got == {pair for pair in combinations(range(8), 2) if reach[pair]}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1_000), chunk=st.integers(1, 12))
def test_paraphrases_by_definition_whatever_the_chunks(seed: int, chunk: int) -> None:
    draw = np.random.default_rng(seed)
    texts = {number: str(number) for number in range(10)}
    axes = np.concatenate([np.eye(3), -np.eye(3)])  # their cosines are exact, and mostly equal
    model = PlacedModel({text: axes[draw.integers(6)] for text in texts.values()})
    pairs = {pair for pair in combinations(texts, 2) if draw.random() < 0.3} or {(0, 1)}
    sizes = {"query_chunk_size": chunk, "corpus_chunk_size": chunk}
    got = ParaphraseMiningEvaluator(texts, list(pairs), **sizes)(model)
    rows = torch.tensor(np.array([model.row(text) for text in texts.values()]), dtype=torch.float32)
    scores = {pair: float(model.similarity(rows, rows)[pair]) for pair in combinations(texts, 2)}
    average, best = 0.0, 0.0
    for level in set(scores.values()):
        above = {pair for pair, score in scores.items() if score >= level}
        here = {pair for pair, score in scores.items() if score == level}
        average += len(above & pairs) / len(above) * len(here & pairs) / len(pairs)
        best = max(best, 2 * len(above & pairs) / (len(above) + len(pairs)))
    assert got["average_precision"] == pytest.approx(average)
    assert got["f1"] == pytest.approx(best)


def test_paraphrases_that_are_not_found() -> None:
    got = ParaphraseMiningEvaluator(TEXTS, [("A", "C")], max_pairs=2)(PlacedModel(PLACES))
    assert set(got.values()) == {0.0}


def test_paraphrases_as_a_dictionary() -> None:
    duplicates = {"A": {"B": True, "C": False}, "D": {}}
    assert ParaphraseMiningEvaluator(TEXTS, duplicates_dict=duplicates).duplicates == {(0, 1)}
    both = ParaphraseMiningEvaluator(TEXTS, [("D", "E")], duplicates)
    assert both.duplicates == {(0, 1), (3, 4)}


def test_what_the_card_says_of_paraphrases() -> None:
    usual = {"add_transitive_closure": False, "max_pairs": 500_000, "top_k": 100}
    assert ParaphraseMiningEvaluator(TEXTS, [("A", "B")]).get_config_dict() == usual
    cut = ParaphraseMiningEvaluator(TEXTS, [("A", "B")], truncate_dim=8, top_k=3)
    assert cut.get_config_dict() == {**usual, "top_k": 3, "truncate_dim": 8}


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "parts"),
    [
        ((TEXTS, []), {}, InputError, ["no duplicates", "at least one pair"]),
        ((TEXTS,), {}, InputError, ["no duplicates", "at least one pair"]),
        ((TEXTS, [("A", "Z")]), {}, InputError, ["'Z' is not in sentences_map", "drop the pair"]),
        ((TEXTS, [("A", ["B"])]), {}, InputError, ["['B'] is not in sentences_map", "drop the pair"]),
        ((TEXTS, [("A", "A")]), {}, InputError, ["('A', 'A')", "two different ids"]),
        ((TEXTS, [5]), {}, InputError, ["got the duplicates 5", "two different ids"]),
        ((TEXTS, ["AB"]), {}, InputError, ["got the duplicates 'AB'", "two different ids"]),
        ((TEXTS, [{"A": 1, "B": 2}]), {}, InputError, ["got the duplicates {", "two different ids"]),
        ((TEXTS, 5), {}, InputTypeError, ["got duplicates_list=5", "expected pairs of ids"]),
        ((TEXTS, "AB"), {}, InputTypeError, ["got duplicates_list='AB'", "expected pairs of ids"]),
        ((TEXTS,), {"duplicates_dict": 5}, InputTypeError, ["got duplicates_dict=5", "{id: True} by id"]),
        ((TEXTS,), {"duplicates_dict": {"A": ["B"]}}, InputTypeError, ["got duplicates_dict['A']=['B']", "True by id"]),
        (({}, [("A", "B")]), {}, InputError, ["no sentences_map"]),
        ((list("ab"), [(0, 1)]), {}, InputTypeError, ["list for sentences_map"]),
        (({"A": 1, "B": "b"}, [("A", "B")]), {}, InputTypeError, ["sentences_map['A'] is 1"]),
        ((TEXTS, [("A", "B")]), {"top_k": 0}, ConfigError, ["top_k=0"]),
        ((TEXTS, [("A", "B")]), {"max_pairs": 0}, ConfigError, ["max_pairs=0"]),
    ],
)
def test_paraphrases_that_cannot_be_evaluated(
    arguments: tuple[Any, ...], options: dict[str, Any], kind: type[MinisbertError], parts: list[str]
) -> None:
    with pytest.raises(kind) as caught:
        ParaphraseMiningEvaluator(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


# ---- several in turn ------------------------------------------------------------------------------------------------


class Fixed(Evaluator):
    """Gives what it was made with."""

    def __init__(self, name: str, **metrics: float) -> None:
        super().__init__(name)
        self.metrics = metrics
        self.places: list[tuple[Any, ...]] = []

    def __call__(self, model: Any, output_path: Any = None, epoch: float = -1, steps: int = -1) -> dict[str, float]:
        self.places.append((output_path, epoch, steps))
        return self.named(self.metrics, primary=next(iter(self.metrics)))


def test_evaluators_in_turn() -> None:
    parts = [Fixed("a", x=0.25, y=1.0), Fixed("b", x=0.75)]
    evaluator = SequentialEvaluator(parts)
    assert evaluator(FixedModel(), "place", epoch=0.5, steps=3) == {
        "a_x": 0.25,
        "a_y": 1.0,
        "b_x": 0.75,
        "sequential_score": 0.75,
    }
    assert evaluator.primary_metric == "sequential_score"
    assert parts[0].places == parts[1].places == [("place", 0.5, 3)]
    mean = SequentialEvaluator(iter(parts), main_score_function=lambda scores: sum(scores) / len(scores))
    assert mean(FixedModel())["sequential_score"] == 0.5


def test_the_same_metric_twice_is_said() -> None:
    evaluator = SequentialEvaluator([Fixed("", x=0.25), Fixed("", x=0.75)])
    with pytest.warns(UserWarning, match="several evaluators have the metric x.*give them names"):
        assert evaluator(FixedModel()) == {"x": 0.75, "sequential_score": 0.75}


def test_files_of_all_parts(tmp_path: Path) -> None:
    parts = [TripletEvaluator(["q"], ["a"], ["b"], name=name) for name in ("one", "two")]
    SequentialEvaluator(parts)(MODEL, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "triplet_evaluation_one_results.csv",
        "triplet_evaluation_two_results.csv",
    ]


def test_no_evaluators() -> None:
    with pytest.raises(InputError, match="no evaluators.*at least one"):
        SequentialEvaluator([])


class Returning(Evaluator):
    """Returns what it was made with, as it is, and does not call `__init__` of its base."""

    def __init__(self, result: Any, primary: str | None = None) -> None:
        self.result, self.primary_metric = result, primary

    def __call__(self, model: Any, output_path: Any = None, epoch: float = -1, steps: int = -1) -> Any:
        return self.result


@pytest.mark.parametrize("result", [None, "0.5", 0.5, {}, {"x": None}, {"x": "high"}, {"x": [1.0]}, [("x", 1.0)]])
def test_a_part_that_returns_no_numbers_by_name(result: Any) -> None:
    with pytest.raises(ConfigError, match=r"got .* from Returning; expected numbers by name: fix"):
        SequentialEvaluator([Returning(result)])(FixedModel())


def test_parts_whose_names_are_not_text() -> None:
    assert SequentialEvaluator([Returning({1: np.float32(0.5)})])(FixedModel()) == {"1": 0.5, "sequential_score": 0.5}
    with pytest.raises(ConfigError, match=r"got metrics named \[1, '1'\] from Returning; expected each name once"):
        SequentialEvaluator([Returning({1: 0.5, "1": 0.25})])(FixedModel())


@pytest.mark.parametrize("primary", ["y", ""])
def test_a_part_without_its_primary_metric(primary: str) -> None:
    with pytest.raises(ConfigError, match=f"from Returning; expected numbers by name, with '{primary}' among them"):
        SequentialEvaluator([Returning({"x": 0.5}, primary)])(FixedModel())


@pytest.mark.parametrize("function", [None, "mean", 3, lambda: 1.0, lambda one, other: 1.0])
def test_a_main_score_that_cannot_be_computed(function: Any) -> None:
    with pytest.raises(ConfigError, match="as main_score_function; expected a function of a list of scores"):
        SequentialEvaluator([Fixed("", x=0.25)], main_score_function=function)


@pytest.mark.parametrize("score", [None, "high", [0.5], {"x": 0.5}, np.complex64(1)])
def test_a_main_score_that_is_no_number(score: Any) -> None:
    evaluator = SequentialEvaluator([Fixed("", x=0.25)], main_score_function=lambda scores: score)
    with pytest.raises(ConfigError, match="from main_score_function; expected a number: fix"):
        evaluator(FixedModel())


@pytest.mark.parametrize(("function", "score"), [(max, 0.75), (np.mean, 0.5), (lambda scores: torch.tensor(1), 1.0)])
def test_a_main_score_of_ones_own(function: Any, score: float) -> None:
    evaluator = SequentialEvaluator([Fixed("a", x=0.25), Fixed("b", x=0.75)], main_score_function=function)
    assert evaluator(FixedModel())["sequential_score"] == score
