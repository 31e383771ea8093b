"""Hard negatives: by hand, against their definition, and how they are asked for."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from common import Angles
from hypothesis import given, settings
from hypothesis import strategies as st

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.errors import ConfigError, InputError, InputTypeError
from minisbert.util import mine_hard_negatives


def mine(rows: Any, **options: Any) -> dict[str, list[Any]]:
    return mine_hard_negatives(rows, Angles(), verbose=False, **options)


def cosine(degrees: float) -> Any:
    return pytest.approx(math.cos(math.radians(degrees)), abs=1e-6)


ROWS = {"question": ["0", "90"], "answer": ["10", "95"]}
CORPUS = ["20", "40", "70", "100"]


def test_triplets_by_hand() -> None:
    got = mine(ROWS, corpus=CORPUS, num_negatives=2, output_scores=True)
    assert got == {
        "question": ["0", "0", "90", "90"],
        "answer": ["10", "10", "95", "95"],
        "negative": ["20", "40", "100", "70"],
        "scores": [[cosine(10), cosine(d)] for d in (20, 40)] + [[cosine(5), cosine(d)] for d in (10, 20)],
    }
    without = mine(ROWS, corpus=CORPUS, num_negatives=2)
    assert without == {name: got[name] for name in ("question", "answer", "negative")}


def test_tuples_by_hand() -> None:
    got = mine(ROWS, corpus=CORPUS, num_negatives=2, output_format="n-tuple-scores")
    assert got == {
        "question": ["0", "90"],
        "answer": ["10", "95"],
        "negative_1": ["20", "100"],
        "negative_2": ["40", "70"],
        "scores": [[cosine(10), cosine(20), cosine(40)], [cosine(5), cosine(10), cosine(20)]],
    }
    # "0" has one candidate above this score, and is left out.
    few = mine(ROWS, corpus=CORPUS, num_negatives=2, min_score=0.93, output_format="n-tuple")
    assert few == {"question": ["90"], "answer": ["95"], "negative_1": ["100"], "negative_2": ["70"]}


def test_labeled_pairs_by_hand() -> None:
    rows = [("0", "10"), ("0", "30"), ("90", "95")]
    got = mine(rows, num_negatives=1, output_format="labeled-pair", max_score=0.6)
    assert got == {
        "column_0": ["0", "0", "0", "90", "90"],
        "column_1": ["10", "30", "95", "95", "30"],
        "label": [1.0, 1.0, 0.0, 1.0, 0.0],
    }
    assert all(type(label) is float for label in got["label"])
    scores = mine(rows, num_negatives=1, output_format="labeled-pair", output_scores=True)
    assert scores["score"][:3] == [cosine(10), cosine(30), cosine(95)]


def test_labeled_lists_by_hand() -> None:
    got = mine(ROWS, corpus=CORPUS, num_negatives=2, output_format="labeled-list", min_score=0.93)
    assert got == {
        "question": ["0", "90"],
        "answer": [["10", "20"], ["95", "100", "70"]],
        "labels": [[1.0, 0.0], [1.0, 0.0, 0.0]],
    }
    scores = mine(ROWS, corpus=CORPUS, num_negatives=1, output_format="labeled-list", output_scores=True)
    assert scores["scores"] == [[cosine(10), cosine(20)], [cosine(5), cosine(10)]]


def test_columns_are_named_or_the_first_two() -> None:
    rows = {"id": [1, 2], "a": ["10", "95"], "q": ["0", "90"]}
    got = mine(rows, anchor_column_name="q", positive_column_name="a", num_negatives=1)
    assert got == {"q": ["0", "90"], "a": ["10", "95"], "negative": ["95", "10"]}
    assert list(mine({**ROWS, "more": ["", ""]}, num_negatives=1)) == ["question", "answer", "negative"]


def test_no_text_of_a_positive_or_of_the_anchor_is_a_negative() -> None:
    rows = [("0", "10"), ("10", "0"), ("0", "20"), ("0", "10"), ("50", "60")]
    got = mine(rows, corpus=["0", "10", "10", "50"], num_negatives=9)
    triplets = list(zip(*got.values(), strict=True))
    assert {(anchor, negative) for anchor, _, negative in triplets} == {
        *(("0", other) for other in ("50", "60")),
        *(("10", other) for other in ("20", "50", "60")),
        *(("50", other) for other in ("0", "10", "20")),
    }
    assert len(triplets) == len(set(triplets))


def test_positives_may_be_candidates() -> None:
    got = mine(ROWS, corpus=CORPUS, num_negatives=2, include_positives=True)
    assert got == {
        "question": ["0", "90"],
        "answer": ["10", "95"],
        "negative_1": ["10", "95"],
        "negative_2": ["20", "100"],
    }


def test_random_negatives_depend_on_the_seed_alone() -> None:
    rows = {"q": ["0", "40"], "a": ["1", "41"]}
    options = {"corpus": [str(angle) for angle in range(2, 40)], "sampling_strategy": "random", "range_max": 30}
    state = random.getstate()
    got = mine(rows, **options)
    assert random.getstate() == state
    assert got == mine(rows, **options)
    assert got != mine(rows, **options, seed=1)
    assert got["negative"] != mine(rows, **{**options, "sampling_strategy": "top"})["negative"]
    angles = [int(negative) for negative in got["negative"]]
    assert angles[:3] == sorted(set(angles[:3]))
    few = mine(rows, corpus=["2", "3"], sampling_strategy="random", num_negatives=3)
    assert sorted(few["negative"][:3]) == ["2", "3", "41"]


@pytest.mark.parametrize(
    ("seed", "options", "expected"),
    [
        (0, {"range_max": 30}, ["14", "26", "29", "38", "26", "11"]),
        (7, {"range_max": 30}, ["6", "12", "14", "38", "37", "19"]),
        (
            7,
            {"range_max": 30, "range_min": 2, "max_score": 0.95, "num_negatives": 4},
            ["21", "23", "26", "27", "18", "17", "11", "10"],
        ),
    ],
)
def test_random_negatives_are_the_references(seed: int, options: dict[str, Any], expected: list[str]) -> None:
    # Written down from sentence-transformers 6.2.0, after `random.seed(seed)`.
    rows, corpus = {"q": ["0", "40"], "a": ["1", "41"]}, [str(angle) for angle in range(2, 40)]
    assert mine(rows, corpus=corpus, sampling_strategy="random", seed=seed, **options)["negative"] == expected


@pytest.mark.parametrize(
    ("output_format", "expected"),
    [
        ("triplet", {"question": [], "answer": [], "negative": []}),
        ("n-tuple", {"question": [], "answer": [], "negative_1": [], "negative_2": []}),
        ("labeled-pair", {**ROWS, "label": [1.0, 1.0]}),
        ("labeled-list", {"question": [], "answer": [], "labels": []}),
    ],
)
def test_no_negatives_left(output_format: str, expected: dict[str, list[Any]]) -> None:
    assert mine(ROWS, num_negatives=2, max_score=-1.1, output_format=output_format) == expected


def test_a_cross_encoder_decides() -> None:
    class Product:
        def predict(self, pairs: list[tuple[str, str]]) -> list[float]:
            self.pairs = [*getattr(self, "pairs", []), *pairs]
            return [float(document) / 100 for _, document in pairs]

    scorer = Product()
    got = mine(ROWS, corpus=CORPUS, num_negatives=2, cross_encoder=scorer, max_score=0.9, output_scores=True)
    assert got["negative"] == ["70", "40", "70", "40"]
    assert got["scores"][0] == pytest.approx([0.1, 0.7])
    assert ("0", "0") not in scorer.pairs


def test_prompts_reach_the_model() -> None:
    model = Angles()
    mine_hard_negatives(
        ROWS, model, num_negatives=1, query_prompt_name="query", corpus_prompt="", batch_size=4, verbose=False
    )
    common = {"normalize_embeddings": True, "convert_to_tensor": True, "show_progress_bar": False, "batch_size": 4}
    assert model.query_options == {**common, "prompt_name": "query"}
    assert model.document_options == {**common, "prompt": ""}


def test_what_was_found_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    mine_hard_negatives(ROWS, Angles(), num_negatives=2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mined 2 rows for 2 anchors among 2 documents; mean score 0.991 of positives, 0.043 of neg")
    assert "2 anchors have fewer than 2 negatives: ask for fewer, raise range_max" in err
    mine(ROWS)
    assert capsys.readouterr().err == ""


def test_results_are_training_rows(tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu")
    words = tiny_models.WORDS
    rows = {"anchor": [f"why {word}" for word in words], "positive": [f"the {word} is" for word in words]}
    config = TrainingConfig(max_steps=1, batch_size=8)
    for output_format, loss in (
        ("triplet", losses.MultipleNegativesRankingLoss(model)),
        ("n-tuple", losses.MultipleNegativesRankingLoss(model)),
        ("labeled-pair", losses.CosineSimilarityLoss(model)),
    ):
        mined = mine_hard_negatives(rows, model, output_format=output_format, num_negatives=2, verbose=False)
        assert len(mined["anchor"]) == {"triplet": 52, "n-tuple": 26, "labeled-pair": 78}[output_format]
        history = Trainer(model, mined, loss=loss, config=config, show_progress_bar=False).train()
        assert history.steps == 1


@pytest.mark.parametrize(
    ("rows", "options", "error", "message"),
    [
        ([], {}, InputError, "holds no rows"),
        ([{"only": "0"}], {}, InputError, r"has the columns \['only'\]; expected anchors and positives"),
        (ROWS, {"anchor_column_name": "query"}, InputError, "there is no 'query'"),
        (ROWS, {"anchor_column_name": "answer"}, InputError, "expected each name once"),
        ({"q": ["0"], "a": [1]}, {}, InputError, "column a holds 1 of type int; expected a text"),
        (ROWS, {"corpus": [None]}, InputTypeError, r"corpus\[0\] is None"),
        (ROWS, {"num_negatives": 0}, ConfigError, "got num_negatives=0"),
        (ROWS, {"range_min": -1}, ConfigError, "got range_min=-1"),
        (
            ROWS,
            {"range_min": 3, "range_max": 3},
            ConfigError,
            "got range_min=3 and range_max=3; expected at least",
        ),
        (ROWS, {"range_max": 2}, ConfigError, "expected at least num_negatives=3"),
        (ROWS, {"sampling_strategy": "best"}, ConfigError, "got sampling_strategy='best'"),
        (ROWS, {"output_format": "pairs"}, ConfigError, "got output_format 'pairs'; expected one of triplet"),
        (ROWS, {"include_positives": True, "output_format": "triplet"}, ConfigError, "expected 'n-tuple'"),
        (ROWS, {"cross_encoder": Angles()}, ConfigError, "without a limit for its scores to decide about"),
        ({"negative": ["0"], "a": ["1"]}, {}, ConfigError, "got a column called negative"),
    ],
)
def test_bad_input_is_named(rows: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mine(rows, **options)


def test_bad_models_are_named() -> None:
    with pytest.raises(InputTypeError, match="got a str, which has no encode_query; expected a model"):
        mine_hard_negatives(ROWS, "model", verbose=False)

    class Classes:
        def predict(self, pairs: list[tuple[str, str]]) -> np.ndarray:
            return np.zeros((len(pairs), 3))

    with pytest.raises(InputError, match=r"got scores of shape \(1, 3\) for 1 pairs; expected one number"):
        mine(ROWS, cross_encoder=Classes(), max_score=1)


def by_definition(rows: list[tuple[str, str]], corpus: list[str], options: dict[str, Any]) -> set[tuple[str, str]]:
    """Anchors and their negatives."""
    model = Angles()
    positives: dict[str, list[str]] = {}
    for anchor, positive in rows:
        positives.setdefault(anchor, []).append(positive)
    most = max(map(len, positives.values()))
    documents = list(dict.fromkeys([*corpus, *(positive for _, positive in rows)]))
    skipping = [options.get(name) for name in ("max_score", "absolute_margin", "relative_margin")]
    wide = 1 if skipping == [None] * 3 else 10
    last = options.get("range_max") or options["range_min"] + wide * options["num_negatives"] + most
    scores = model.similarity(model.embed(list(positives)), model.embed(documents)).tolist()
    found = set()
    for anchor, row in zip(positives, scores, strict=True):
        score = dict(zip(documents, row, strict=True))
        worst = min(score[positive] for positive in positives[anchor])
        highest = [options.get("max_score", math.inf)]
        highest += [worst - options["absolute_margin"]] if "absolute_margin" in options else []
        highest += [worst - abs(worst) * options["relative_margin"]] if "relative_margin" in options else []
        ranking = sorted(documents, key=lambda document: -score[document])
        ranking = [d for d in ranking if d != anchor or d in positives[anchor]][: last + most]
        kept = [
            document
            for document in ranking
            if document not in positives[anchor]
            and options.get("min_score", -math.inf) <= score[document] <= min(highest)
        ]
        found |= {(anchor, d) for d in kept[options["range_min"] : last][: options["num_negatives"]]}
    return found


angle = st.integers(0, 359).map(str)
limits = st.fixed_dictionaries(
    {"num_negatives": st.integers(1, 4), "range_min": st.integers(0, 3)},
    optional={
        # Odd numbers, so that no limit falls on a cosine.
        "max_score": st.sampled_from([0.8123, 0.1123]),
        "min_score": st.sampled_from([0.0123, 0.6123]),
        "absolute_margin": st.sampled_from([0.0123, 0.3123]),
        "relative_margin": st.sampled_from([0.0512, 0.4512]),
        "range_max": st.integers(7, 12),
    },
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(angle, angle), min_size=1, max_size=8), st.lists(angle, max_size=30), limits)
def test_negatives_by_definition(rows: list[tuple[str, str]], corpus: list[str], options: dict[str, Any]) -> None:
    got = mine(rows, corpus=corpus, **options)
    names = ("column_0", "column_1", "negative")
    triplets = set(zip(*(got[name] for name in names), strict=True))
    assert len(triplets) == len(got["negative"])
    expected = by_definition(rows, corpus, options)
    assert triplets == {(a, p, negative) for a, p in rows for anchor, negative in expected if anchor == a}


LIMITS = ("max_score", "min_score", "absolute_margin", "relative_margin")


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("value", [math.nan, "0.5", 10**400, [1], True])
def test_limits_that_are_none(limit: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"got {limit}"):
        mine(ROWS, corpus=CORPUS, **{limit: value})


@pytest.mark.parametrize("option", ["num_negatives", "range_min", "range_max", "seed"])
@pytest.mark.parametrize("value", [1.5, "1", math.nan, [1], True])
def test_numbers_that_are_none(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"got {option}"):
        mine(ROWS, corpus=CORPUS, **{option: value})


def test_more_negatives_than_anyone_needs() -> None:
    with pytest.raises(ConfigError, match="at most 10,000"):
        mine(ROWS, corpus=CORPUS, num_negatives=10**9, output_format="n-tuple")


@pytest.mark.parametrize("columns", [["question"], {"a": 1}, 5])
def test_names_of_columns_that_are_none(columns: Any) -> None:
    with pytest.raises(InputTypeError, match="as columns; expected names"):
        mine(ROWS, anchor_column_name=columns)


@pytest.mark.parametrize("scores", ["ab", None, [math.nan, 1.0], [[1.0], [2.0, 3.0]]])
def test_cross_encoders_that_give_no_numbers(scores: Any) -> None:
    class Scorer:
        def predict(self, pairs: Any) -> Any:
            return scores

    with pytest.raises(InputError, match="got scores that are not numbers|got NaN as a score of the cross-encoder"):
        mine(ROWS, corpus=CORPUS, cross_encoder=Scorer(), max_score=0.9, num_negatives=1)
