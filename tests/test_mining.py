"""Hard negatives against their definition, and against the installed reference."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.errors import ConfigError, InputError, InputTypeError
from minisbert.similarity import cos_sim, pairwise_cos_sim
from minisbert.util import mine_hard_negatives

parity = pytest.mark.parity
FORMATS = ("triplet", "n-tuple", "labeled-pair", "labeled-list")


class Angles:
    """A model for which a text is an angle in degrees: similarity is the cosine of the difference."""

    device = torch.device("cpu")

    def encode_query(self, texts: list[str], **options: Any) -> torch.Tensor:
        self.query_options = options
        return self._encode(texts)

    def encode_document(self, texts: list[str], **options: Any) -> torch.Tensor:
        self.document_options = options
        return self._encode(texts)

    def similarity(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return cos_sim(a, b)

    def similarity_pairwise(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return pairwise_cos_sim(a, b)

    def _encode(self, texts: list[str]) -> torch.Tensor:
        angles = torch.tensor([math.radians(float(text)) for text in texts], dtype=torch.float64)
        return torch.stack([angles.cos(), angles.sin()], dim=1).float()


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
    got = mine(rows, num_negatives=1, output_format="labeled-pair", max_score=0.5)
    assert (
        got
        == {
            "column_0": ["0", "0", "0", "90"],
            "column_1": ["10", "30", "95", "95"],
            "label": [1.0, 1.0, 0.0, 1.0],
        }
        or got["column_1"][-1] == "30"
    )
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
    assert "2 anchors have fewer than 2 negatives: raise range_max" in err
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
        (ROWS, {"num_negatives": 0}, ConfigError, "got num_negatives 0"),
        (ROWS, {"range_min": -1}, ConfigError, "got range_min -1"),
        (ROWS, {"range_min": 3, "range_max": 3}, ConfigError, "got range_min 3 and range_max 3; expected room"),
        (ROWS, {"range_max": 2}, ConfigError, "expected room for num_negatives, 3"),
        (ROWS, {"sampling_strategy": "best"}, ConfigError, "got sampling_strategy 'best'"),
        (ROWS, {"output_format": "pairs"}, ConfigError, "got output_format 'pairs'; expected one of triplet"),
        (ROWS, {"include_positives": True, "output_format": "triplet"}, ConfigError, "expected 'n-tuple'"),
        (ROWS, {"cross_encoder": Angles()}, ConfigError, "nothing that its scores could decide"),
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
    scores = model.similarity(model._encode(list(positives)), model._encode(documents)).tolist()
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


# ---- against the reference --------------------------------------------------------------------


class Remembering:
    """A model of the reference, for many calls with the same texts."""

    def __init__(self, model: Any) -> None:
        self.device, self.similarity, self.similarity_pairwise = (
            model.device,
            model.similarity,
            model.similarity_pairwise,
        )
        self.encoders = {"query": model.encode_query, "document": model.encode_document}
        self.known: dict[Any, np.ndarray] = {}

    def encode_query(self, texts: list[str], **options: Any) -> np.ndarray:
        return self._encode("query", texts, **options)

    def encode_document(self, texts: list[str], **options: Any) -> np.ndarray:
        return self._encode("document", texts, **options)

    def _encode(
        self, kind: str, texts: list[str], prompt: str | None = None, prompt_name: str | None = None, **_: Any
    ) -> np.ndarray:
        key = (kind, prompt, prompt_name, *texts)
        if key not in self.known:
            self.known[key] = self.encoders[kind](
                texts, prompt=prompt, prompt_name=prompt_name, normalize_embeddings=True
            )
        return self.known[key]


class Digests:
    """A cross-encoder with a score of its own for any two texts."""

    def predict(self, pairs: list[tuple[str, str]], **_: Any) -> torch.Tensor:
        return torch.tensor([crc32(f"{a}, {b}".encode()) / 2**32 for a, b in pairs])


@pytest.fixture(scope="module")
def texts() -> tuple[dict[str, list[str]], list[str]]:
    """Pairs, of which some share an anchor, a positive, or both; and a corpus that holds some positives."""
    draw = random.Random(1)
    sentences = list(
        dict.fromkeys(" ".join(draw.choices(tiny_models.WORDS, k=draw.randint(3, 14))) for _ in range(180))
    )
    anchors, others = sentences[:40], sentences[40:]
    rows = [(anchor, f"{anchor} {draw.choice(tiny_models.WORDS)} not") for anchor in anchors]
    rows += [(draw.choice(anchors), document) for document in others[:10]] + rows[:3]
    draw.shuffle(rows)
    return {"query": [a for a, _ in rows], "answer": [p for _, p in rows]}, [*others, rows[5][1]]


@pytest.fixture(scope="module")
def reference_model(tiny: Callable[[str], Path]) -> Any:
    reference = pytest.importorskip("sentence_transformers")
    model = reference.SentenceTransformer(str(tiny("bert")), device="cpu", prompts={"query": "what is ", "other": "a "})
    return Remembering(model)


def compared(ours: dict[str, list[Any]], theirs: Any, what: str, compare: Callable[..., None]) -> None:
    """The same rows, and scores within the bound."""
    names = ("score", "scores")
    assert list(ours) == theirs.column_names
    for name in ours:
        if name not in names:
            assert ours[name] == list(theirs[name]), name
    scores = [
        np.concatenate([np.zeros(0), *(np.ravel(row) for name in columns if name in names for row in columns[name])])
        for columns in (ours, theirs.to_dict())
    ]
    assert len(scores[0]) == len(scores[1])
    compare(what, np.abs(scores[0] - scores[1]).max(initial=0), 1e-6, cases=len(theirs))


CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "one": {"num_negatives": 1},
    "many": {"num_negatives": 8},
    "range": {"range_min": 4, "range_max": 12},
    "range_min": {"range_min": 3},
    "few documents": {"range_max": 70, "num_negatives": 20},
    "max_score": {"max_score": 0.8},
    "min_score": {"min_score": 0.9},
    "absolute_margin": {"absolute_margin": 0.05},
    "no absolute_margin": {"absolute_margin": 0},
    "relative_margin": {"relative_margin": 0.05},
    "everything": {
        "range_min": 2,
        "range_max": 40,
        "max_score": 0.9,
        "min_score": 0.2,
        "absolute_margin": 0.01,
        "relative_margin": 0.02,
        "num_negatives": 5,
    },
    "random": {"sampling_strategy": "random", "range_max": 20},
    "random of few": {"sampling_strategy": "random", "max_score": 0.72, "num_negatives": 4, "range_max": 150},
    "prompts": {"query_prompt_name": "other", "corpus_prompt": "how "},
    "columns": {"anchor_column_name": "answer", "positive_column_name": "query"},
    "cross_encoder": {"cross_encoder": Digests(), "absolute_margin": 0.1, "max_score": 0.9},
    "cross_encoder and min_score": {"cross_encoder": Digests(), "min_score": 0.1},
    "nothing left": {"max_score": -1},
}


@parity
@pytest.mark.parametrize("case", CASES)
def test_rows_are_the_references(
    case: str,
    texts: tuple[dict[str, list[str]], list[str]],
    reference_model: Any,
    compare: Callable[..., None],
) -> None:
    datasets = pytest.importorskip("datasets")
    from sentence_transformers.util import mine_hard_negatives as theirs

    rows, documents = texts
    number = list(CASES).index(case)
    dataset, found = datasets.Dataset.from_dict(rows), []
    for turn, output_format in enumerate(FORMATS):
        shared = {
            **CASES[case],
            "corpus": documents if case != "columns" and (turn + number) % 2 else None,
            "output_format": output_format,
            "output_scores": bool((turn // 2 + number) % 2),
            "verbose": False,
        }
        random.seed(7)
        expected = theirs(dataset, reference_model, **shared)
        got = mine_hard_negatives(rows, reference_model, **shared, seed=7)
        compared(got, expected, f"mine_hard_negatives, {output_format}: scores (same rows)", compare)
        found.append(len(got["query"]))
    pairs = len(set(zip(*rows.values(), strict=True)))
    if case == "nothing left":
        assert found == [0, 0, pairs, 0]
    else:
        assert found[0] > 10
        assert found[2] > pairs


@parity
def test_positives_among_the_candidates(
    texts: tuple[dict[str, list[str]], list[str]], reference_model: Any, compare: Callable[..., None]
) -> None:
    datasets = pytest.importorskip("datasets")
    from sentence_transformers.util import mine_hard_negatives as theirs

    rows, documents = texts
    shared = {
        "corpus": documents,
        "include_positives": True,
        "num_negatives": 20,
        "output_scores": True,
        "verbose": False,
    }
    dataset = datasets.Dataset.from_dict(rows)
    got, expected = mine_hard_negatives(dataset, reference_model, **shared), theirs(dataset, reference_model, **shared)
    assert any(positive in others for positive, *others in zip(*list(got.values())[1:22], strict=True))
    compared(got, expected, "mine_hard_negatives, include_positives: scores (same rows)", compare)


@parity
def test_rows_of_our_own_model_are_the_references(
    texts: tuple[dict[str, list[str]], list[str]],
    tiny: Callable[[str], Path],
    reference_model: Any,
    compare: Callable[..., None],
) -> None:
    datasets = pytest.importorskip("datasets")
    from sentence_transformers.util import mine_hard_negatives as theirs

    rows, documents = texts
    ours = SentenceTransformer(tiny("bert"), device="cpu", prompts={"query": "what is "})
    shared = {"corpus": documents, "relative_margin": 0.01, "output_scores": True, "verbose": False}
    expected = theirs(datasets.Dataset.from_dict(rows), reference_model, **shared)
    got = mine_hard_negatives(rows, ours, **shared)
    compared(got, expected, "mine_hard_negatives, each with its own model", compare)


@parity
def test_the_reference_takes_the_anchor_for_its_own_negative() -> None:
    datasets = pytest.importorskip("datasets")
    from sentence_transformers.util import mine_hard_negatives as theirs

    rows = {"a": ["0", "40", "90"], "b": ["10", "0", "95"]}
    options = {"num_negatives": 1, "verbose": False}
    assert theirs(datasets.Dataset.from_dict(rows), Angles(), **options)["negative"][0] == "0"
    assert mine_hard_negatives(rows, Angles(), **options)["negative"][0] == "95"
