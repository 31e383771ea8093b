"""Search and hard negatives equal the reference's."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import tiny_models
import torch
from common import SIMILARITIES, Angles, as_tuples, difference, vectors
from references import run_in

from minisbert import SentenceTransformer, util
from minisbert.util import mine_hard_negatives

reference = pytest.importorskip("sentence_transformers")
functions = pytest.importorskip("sentence_transformers.util")
datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.parity

Hits = list[list[tuple[Any, float]]]


def apart(got: Hits, expected: Hits) -> float:
    """Largest difference between two rankings: of the scores at a rank, and of the scores of a thing.

    Things with scores so close that rounding decides may have changed places. What only one side has is compared
    with the last of the other side, which took its place.
    """
    assert [len(row) for row in got] == [len(row) for row in expected]
    found = [0.0]
    for ours, theirs in zip(got, expected, strict=True):
        found += [abs(a[1] - b[1]) for a, b in zip(ours, theirs, strict=True)]
        left, right = dict(ours), dict(theirs)
        found += [abs(left.get(thing, ours[-1][1]) - right.get(thing, theirs[-1][1])) for thing in {*left, *right}]
    return float(np.max(found))


def as_ranking(pairs: list[Any]) -> Hits:
    return [[((i, j), score) for score, i, j in pairs]]


@pytest.mark.parametrize("function", SIMILARITIES)
def test_search(function: str, compare: Callable[..., None]) -> None:
    queries, corpus = vectors(60, 48), vectors(300, 48, seed=1)
    for options in ({}, {"top_k": 3}, {"top_k": 1000}, {"corpus_chunk_size": 70, "query_chunk_size": 9}):
        ours = util.semantic_search(queries, corpus, score_function=getattr(util, function), **options)
        theirs = functions.semantic_search(
            torch.from_numpy(queries),
            torch.from_numpy(corpus),
            score_function=getattr(functions, function),
            **options,
        )
        compare("semantic_search", apart(as_tuples(ours), as_tuples(theirs)), 1e-6, cases=sum(map(len, ours)))


def test_paraphrases(compare: Callable[..., None]) -> None:
    values = torch.from_numpy(vectors(120, 24))
    cases: list[dict[str, int]] = [{}, {"top_k": 1}, {"top_k": 5, "max_pairs": 100}, {"max_pairs": 7}]
    cases += [{"query_chunk_size": 31, "corpus_chunk_size": 17, "top_k": 3, "max_pairs": 50}]
    for options in cases:
        ours = util.paraphrase_mining_embeddings(values, **options)
        theirs = functions.paraphrase_mining_embeddings(values, **options)
        compare("paraphrase_mining", apart(as_ranking(ours), as_ranking(theirs)), 1e-6, cases=len(ours))
        if "max_pairs" in options:
            assert len(ours) == options["max_pairs"]


def test_paraphrases_of_texts(tiny: Callable[[str], Path], compare: Callable[..., None]) -> None:
    folder = tiny("bert")
    texts = ["the cat sat", "a dog ran to the sea", "why is the sky blue", "one two three"]
    options = {"truncate_dim": 20, "prompt": "how "}
    ours = util.paraphrase_mining(SentenceTransformer(folder, device="cpu"), texts, **options)
    their_model = reference.SentenceTransformer(str(folder), device="cpu")
    theirs = functions.paraphrase_mining(their_model, texts, **options)
    compare("paraphrase_mining", apart(as_ranking(ours), as_ranking(theirs)), 1e-6, cases=len(ours))


def test_communities(compare: Callable[..., None]) -> None:
    centres = vectors(12, 24, seed=2)
    values = np.repeat(centres, 25, axis=0) + 0.5 * vectors(300, 24, seed=3)
    assert util.community_detection(values, 0.75)
    for threshold in (0.3, 0.75, 0.9):
        for least in (1, 5, 10, 301):
            for batch_size in (64, 1024):
                ours = util.community_detection(values, threshold, min_community_size=least, batch_size=batch_size)
                theirs = functions.community_detection(values, threshold, least, batch_size)
                differing = sum(a != b for a, b in zip_longest(ours, theirs))
                compare("community_detection", differing, 0, cases=len(theirs))


def test_search_of_an_older_reference(tmp_path: Path, compare: Callable[..., None]) -> None:
    queries, corpus = vectors(20), vectors(300, seed=1)
    np.savez(tmp_path / "embeddings.npz", queries=queries, corpus=corpus)
    code = """
import json, sys
import numpy as np
import torch
from sentence_transformers import util
loaded = np.load(sys.argv[1])
queries, corpus = torch.from_numpy(loaded["queries"]), torch.from_numpy(loaded["corpus"])
print(json.dumps([
    util.semantic_search(queries, corpus, top_k=5),
    util.paraphrase_mining_embeddings(corpus, top_k=3),
]))
"""
    hits, pairs = run_in("5.1.2", code, tmp_path / "embeddings.npz")
    found = apart(as_tuples(util.semantic_search(queries, corpus, top_k=5)), as_tuples(hits))
    mined = apart(as_ranking(util.paraphrase_mining_embeddings(corpus, top_k=3)), as_ranking(pairs))
    compare("semantic_search", found, 1e-6, cases=sum(map(len, hits)))
    compare("paraphrase_mining", mined, 1e-6, cases=len(pairs))


# ---- mine_hard_negatives --------------------------------------------------------------------------------------------


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
    model = reference.SentenceTransformer(str(tiny("bert")), device="cpu", prompts={"query": "what is ", "other": "a "})
    return Remembering(model)


FORMATS = ("triplet", "n-tuple", "labeled-pair", "labeled-list")


def hold(got: dict[str, list[Any]], expected: Any, compare: Callable[..., None]) -> None:
    """The same columns, the same rows, and scores within the bound."""
    assert list(got) == expected.column_names
    scores = {"score", "scores"} & {*got}
    rows, wanted = (
        list(zip_longest(*(columns[name] for name in got if name not in scores))) for columns in (got, expected[:])
    )
    differing = sum(a != b for a, b in zip_longest(rows, wanted))
    compare("mine_hard_negatives: rows", differing, 0, cases=len(wanted))
    for name in scores:
        ours, theirs = (
            np.concatenate([np.zeros(0), *map(np.atleast_1d, columns[name])]) for columns in (got, expected[:])
        )
        compare("mine_hard_negatives: scores", difference(ours, theirs), 1e-6, cases=len(theirs))


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


@pytest.mark.parametrize("case", CASES)
def test_negatives(
    case: str,
    texts: tuple[dict[str, list[str]], list[str]],
    reference_model: Any,
    compare: Callable[..., None],
) -> None:
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
        expected = functions.mine_hard_negatives(dataset, reference_model, **shared)
        got = mine_hard_negatives(rows, reference_model, **shared, seed=7)
        hold(got, expected, compare)
        found.append(len(got["query"]))
    pairs = len(set(zip(*rows.values(), strict=True)))
    if case == "nothing left":
        assert found == [0, 0, pairs, 0]
    else:
        assert found[0] > 10
        assert found[2] > pairs


def test_positives_among_the_candidates(
    texts: tuple[dict[str, list[str]], list[str]], reference_model: Any, compare: Callable[..., None]
) -> None:
    rows, documents = texts
    shared = {
        "corpus": documents,
        "include_positives": True,
        "num_negatives": 20,
        "output_scores": True,
        "verbose": False,
    }
    dataset = datasets.Dataset.from_dict(rows)
    got, expected = (
        mine_hard_negatives(dataset, reference_model, **shared),
        functions.mine_hard_negatives(dataset, reference_model, **shared),
    )
    assert any(positive in others for positive, *others in zip(*list(got.values())[1:22], strict=True))
    hold(got, expected, compare)


def test_negatives_of_each_ones_own_model(
    texts: tuple[dict[str, list[str]], list[str]],
    tiny: Callable[[str], Path],
    reference_model: Any,
    compare: Callable[..., None],
) -> None:
    rows, documents = texts
    ours = SentenceTransformer(tiny("bert"), device="cpu", prompts={"query": "what is "})
    shared = {"corpus": documents, "relative_margin": 0.01, "output_scores": True, "verbose": False}
    expected = functions.mine_hard_negatives(datasets.Dataset.from_dict(rows), reference_model, **shared)
    got = mine_hard_negatives(rows, ours, **shared)
    hold(got, expected, compare)


def test_the_reference_takes_the_anchor_for_its_own_negative() -> None:
    rows = {"a": ["0", "40", "90"], "b": ["10", "0", "95"]}
    options = {"num_negatives": 1, "verbose": False}
    assert functions.mine_hard_negatives(datasets.Dataset.from_dict(rows), Angles(), **options)["negative"][0] == "0"
    assert mine_hard_negatives(rows, Angles(), **options)["negative"][0] == "95"
