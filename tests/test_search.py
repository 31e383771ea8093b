"""Search, paraphrases and communities, by hand and against definitions by brute force."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common import FORMS, as_tuples, difference, vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from places import ROOT

from minisbert import SentenceTransformer, util
from minisbert.errors import ConfigError, InputError, InputTypeError
from minisbert.search import nearest, top_scores

SETTINGS = settings(max_examples=60, deadline=None)


@st.composite
def whole_vectors(draw: st.DrawFn, *, least: int = 0) -> np.ndarray:
    """Few, small whole numbers: their dot products are exact, and many are equal."""
    rows = draw(st.integers(least, 12))
    values = draw(st.lists(st.integers(-2, 2), min_size=rows * 2, max_size=rows * 2))
    return np.asarray(values, np.float32).reshape(rows, 2)


def ranked(scores: np.ndarray, top_k: int) -> list[list[tuple[int, float]]]:
    """The definition: all columns by score, then by number."""
    return [
        sorted(((column, float(score)) for column, score in enumerate(row)), key=lambda hit: (-hit[1], hit[0]))[:top_k]
        for row in scores
    ]


# ---- semantic_search -----------------------------------------------------------------------------


@SETTINGS
@given(whole_vectors(), whole_vectors(), st.integers(1, 15), st.integers(1, 5), st.integers(1, 5))
def test_search_is_a_sort_whatever_the_chunks(
    queries: np.ndarray, corpus: np.ndarray, top_k: int, query_chunk: int, corpus_chunk: int
) -> None:
    hits = util.semantic_search(
        queries,
        corpus,
        top_k=top_k,
        score_function=util.dot_score,
        query_chunk_size=query_chunk,
        corpus_chunk_size=corpus_chunk,
    )
    assert as_tuples(hits) == ranked(queries @ corpus.T, top_k)


@SETTINGS
@given(st.lists(st.lists(st.integers(0, 2), min_size=7, max_size=7), min_size=1, max_size=4), st.integers(1, 9))
def test_top_scores_takes_the_first_of_equals(rows: list[list[int]], top_k: int) -> None:
    scores, columns = top_scores(torch.tensor(rows, dtype=torch.float32), top_k)
    got = [list(zip(*row, strict=True)) for row in zip(columns.tolist(), scores.tolist(), strict=True)]
    assert got == ranked(np.asarray(rows), top_k)


def test_search_by_hand() -> None:
    hits = util.semantic_search([[2.0, 0.0]], [[0.0, 1.0], [3.0, 4.0], [5.0, 0.0], [0.0, 0.0]], top_k=3)
    assert [[hit["corpus_id"] for hit in row] for row in hits] == [[2, 1, 0]]
    assert [hit["score"] for hit in hits[0]] == pytest.approx([1.0, 0.6, 0.0])
    assert type(hits[0][0]["corpus_id"]) is int
    assert type(hits[0][0]["score"]) is float


ALL_FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    **FORMS,
    "part of a graph": lambda values: torch.from_numpy(values).requires_grad_(),
    "back to front": lambda values: values[::-1].copy()[::-1],
    "whole numbers": lambda values: (values * 30).astype(np.int8),
}


@pytest.mark.parametrize("form", ALL_FORMS)
def test_search_takes_every_form(form: str) -> None:
    queries, corpus = vectors(3), vectors(20, seed=1)
    got = util.semantic_search(ALL_FORMS[form](queries), ALL_FORMS[form](corpus), top_k=1)
    scores = util.cos_sim(queries, corpus)
    assert [hits[0]["corpus_id"] for hits in got] == scores.argmax(dim=1).tolist()
    assert [hits[0]["score"] for hits in got] == pytest.approx(scores.max(dim=1).values.tolist(), abs=0.02)
    assert util.community_detection(ALL_FORMS[form](corpus), -1, min_community_size=20)
    assert len(util.paraphrase_mining_embeddings(ALL_FORMS[form](corpus))) == 190


def test_search_reads_a_file_of_embeddings(tmp_path: Path) -> None:
    np.save(tmp_path / "corpus.npy", vectors(50))
    corpus = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    got = util.semantic_search(corpus[7], corpus, top_k=2, corpus_chunk_size=8)
    assert got[0][0]["corpus_id"] == 7
    assert util.cos_sim(corpus[7], corpus).argmax() == 7


@pytest.mark.parametrize("empty", [[], np.zeros((0, 4)), torch.zeros(0, 4), np.zeros(0)])
def test_nothing_to_search(empty: Any) -> None:
    assert util.semantic_search(vectors(2, 4), empty) == [[], []]
    assert util.semantic_search(empty, vectors(2, 4)) == []
    assert util.paraphrase_mining_embeddings(empty) == []
    assert util.community_detection(empty, min_community_size=1) == []


def test_nearest_gives_tensors() -> None:
    scores, rows = nearest(vectors(3), vectors(5), top_k=9)
    assert scores.shape == rows.shape == (3, 5)
    assert rows.dtype == torch.int64


def test_scores_are_computed_in_blocks() -> None:
    shapes = []

    def score(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        shapes.append((len(a), len(b)))
        return util.dot_score(a, b)

    util.semantic_search(vectors(5), vectors(7), score_function=score, query_chunk_size=2, corpus_chunk_size=3, top_k=2)
    assert max(shapes) == (2, 3)
    assert sum(a * b for a, b in shapes) == 35
    shapes.clear()
    util.paraphrase_mining_embeddings(vectors(7), score_function=score, query_chunk_size=2, corpus_chunk_size=3)
    assert max(shapes) == (2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: util.semantic_search(vectors(1), vectors(1), top_k=0), ConfigError, "got top_k=0; expected"),
        (lambda: util.semantic_search(vectors(1), vectors(1), top_k=1.5), ConfigError, "got top_k=1.5; expected"),
        (lambda: util.semantic_search([], [], query_chunk_size=0), ConfigError, "got query_chunk_size=0"),
        (lambda: util.semantic_search(vectors(1), vectors(1, 3)), InputError, "got 16 and 3 dimensions"),
        (lambda: util.semantic_search(np.zeros((1, 2, 3)), vectors(1)), InputError, r"got embeddings of shape \(1, 2"),
        (lambda: util.semantic_search(iter([]), vectors(1)), InputTypeError, "got list_iterator as embeddings"),
        (lambda: util.semantic_search(["a"], vectors(1)), InputError, "are not a matrix"),
        (
            lambda: util.semantic_search(vectors(2), vectors(2), score_function=util.pairwise_cos_sim),
            InputError,
            r"got scores of shape \(2,\) for 2 queries",
        ),
        (lambda: util.paraphrase_mining_embeddings([], max_pairs=0), ConfigError, "got max_pairs=0"),
        (lambda: util.paraphrase_mining(None, ["a"]), InputTypeError, "got a NoneType as model; expected one with"),
        (lambda: util.community_detection(vectors(2), min_community_size=0), ConfigError, "got min_community_size=0"),
        (lambda: util.community_detection(vectors(2), batch_size=0), ConfigError, "got batch_size=0"),
        (lambda: util.truncate_embeddings(vectors(2), 0), ConfigError, "got truncate_dim=0"),
        (lambda: util.truncate_embeddings([[1.0]], 1), InputTypeError, "got embeddings in a list"),
        (lambda: util.pairwise_angle_sim(vectors(2), vectors(3)), InputError, "expected one shape"),
    ],
)
def test_bad_input_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# ---- paraphrase_mining ---------------------------------------------------------------------------


def all_pairs(scores: np.ndarray, top_k: int, max_pairs: int) -> list[list[float]]:
    """The definition: pairs of which one is among the best of the other, by score, then by number."""
    count = len(scores)
    others = scores.astype(np.float64)
    np.fill_diagonal(others, -math.inf)
    found = {
        (min(i, j), max(i, j)) for i, row in enumerate(ranked(others, min(top_k, max(count - 1, 0)))) for j, _ in row
    }
    return [[float(scores[i, j]), i, j] for i, j in sorted(found, key=lambda pair: (-scores[pair], *pair))[:max_pairs]]


@SETTINGS
@given(whole_vectors(), st.integers(1, 13), st.integers(1, 30), st.integers(1, 5), st.integers(1, 5))
def test_paraphrases_are_a_sort_whatever_the_chunks(
    values: np.ndarray, top_k: int, max_pairs: int, query_chunk: int, corpus_chunk: int
) -> None:
    got = util.paraphrase_mining_embeddings(
        values,
        top_k=top_k,
        max_pairs=max_pairs,
        score_function=util.dot_score,
        query_chunk_size=query_chunk,
        corpus_chunk_size=corpus_chunk,
    )
    assert got == all_pairs(values @ values.T, top_k, max_pairs)


def test_paraphrases_of_texts(tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu")
    texts = ["the cat sat", "a dog ran to the sea", "the cat sat", "why is the sky blue"]
    (score, first, second), *others = util.paraphrase_mining(model, texts)
    assert (first, second) == (0, 2)
    assert score == pytest.approx(1, abs=1e-5)
    assert len(others) == 5
    assert util.paraphrase_mining(model, []) == util.paraphrase_mining(model, ["one"]) == []
    with pytest.raises(InputTypeError, match=r"sentences\[1\] is None"):
        util.paraphrase_mining(model, ["a", None])


def test_paraphrase_options_reach_encode() -> None:
    class Model:
        def encode(self, texts: list[str], **options: Any) -> Any:
            self.options = options
            return [[1.0, 0.0]] * len(texts)

    model = Model()
    assert util.paraphrase_mining(model, ("a", "b"), truncate_dim=3, prompt="", batch_size=7) == [[1.0, 0, 1]]
    assert model.options == {
        "convert_to_tensor": True,
        "show_progress_bar": False,
        "truncate_dim": 3,
        "prompt": "",
        "batch_size": 7,
    }


# ---- community_detection -------------------------------------------------------------------------


def groups(scores: np.ndarray, threshold: float, least: int) -> list[list[int]]:
    """The definition: centres by the size of their neighbourhood; each takes what is left of it."""
    near = [[j for j, score in row if score >= threshold] for row in ranked(scores, len(scores))]
    taken: set[int] = set()
    found = []
    for centre in sorted(range(len(near)), key=lambda row: -len(near[row])):
        left = [row for row in near[centre] if row not in taken]
        if centre not in taken and len(near[centre]) >= least and len(left) >= least:
            found.append([centre, *(row for row in left if row != centre)])
            taken.update(found[-1])
    return sorted(found, key=len, reverse=True)


@pytest.mark.parametrize("threshold", [-1.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("least", [1, 3, 10])
@pytest.mark.parametrize("batch_size", [1, 7, 1024])
def test_communities_by_definition(threshold: float, least: int, batch_size: int) -> None:
    values = vectors(80, 4)
    scores = util.cos_sim(values, values).numpy()
    got = util.community_detection(values, threshold, min_community_size=least, batch_size=batch_size)
    assert got == groups(scores, threshold, least)


def test_communities_by_hand() -> None:
    values = [[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 4 + [[-1.0, 0.0]]
    assert util.community_detection(values, min_community_size=3) == [[3, 4, 5, 6], [0, 1, 2]]
    assert util.community_detection(values, min_community_size=4) == [[3, 4, 5, 6]]
    assert util.community_detection(values, min_community_size=9) == []
    assert util.community_detection([1.0, 0.0], min_community_size=1) == [[0]]


@SETTINGS
@given(whole_vectors(least=1), st.integers(1, 4), st.integers(1, 5))
def test_communities_share_no_row(values: np.ndarray, least: int, batch_size: int) -> None:
    found = util.community_detection(values, 0.8, min_community_size=least, batch_size=batch_size)
    rows = [row for group in found for row in group]
    assert len(rows) == len(set(rows))
    assert [len(group) for group in found] == sorted(map(len, found), reverse=True)
    scores = util.cos_sim(values, values)
    assert all(len(group) >= least and all(scores[group[0], row] > 0.799 for row in group) for group in found)


# ---- the smaller functions -----------------------------------------------------------------------


def test_angle_similarity_by_hand() -> None:
    # Unit complex numbers i and 1: the conjugate product is i or -i, of which the parts sum to 1 or -1.
    assert util.pairwise_angle_sim([[0.0, 2.0], [3.0, 0.0]], [[5.0, 0.0], [0.0, 1.0]]).tolist() == [1.0, 1.0]
    assert util.pairwise_angle_sim([[1.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [-1.0, 0.0]]).tolist() == pytest.approx(
        [2**0.5, 1.0]
    )
    assert util.pairwise_angle_sim([[3.0]], [[-2.0]]).tolist() == [1.0]


@pytest.mark.parametrize("dim", [8, 7])
def test_angle_similarity_by_definition(dim: int) -> None:
    a, b = vectors(50, dim, zero_row=3), vectors(50, dim, seed=1)
    left, right = (np.pad(rows.astype(np.float64), ((0, 0), (0, dim % 2))) for rows in (a, b))
    x, y = (rows[:, :4] + 1j * rows[:, 4:] for rows in (left, right))
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    product = (x * y.conj()).sum(axis=1) / np.where(lengths, lengths, 1)
    expected = np.abs(product.real + product.imag)
    assert expected[3] == 0
    assert difference(util.pairwise_angle_sim(a, b), expected) <= 5e-7


def test_truncate_embeddings_is_a_view() -> None:
    values = vectors(3)
    assert np.shares_memory(util.truncate_embeddings(values, 4), values)
    assert util.truncate_embeddings(values, 4).shape == (3, 4)
    assert util.truncate_embeddings(values, None) is not None
    assert util.truncate_embeddings(torch.from_numpy(values[0]), 99).shape == (16,)


def test_similarity_function_by_the_names_of_the_reference() -> None:
    assert util.SimilarityFunction.possible_values() == ["cosine", "dot", "euclidean", "manhattan"]
    assert util.SimilarityFunction.to_similarity_fn("dot") is util.dot_score
    assert util.SimilarityFunction.to_similarity_pairwise_fn("cosine") is util.pairwise_cos_sim
    assert util.SimilarityFunction.DOT is util.SimilarityFunction.DOT_PRODUCT
    assert util.pytorch_cos_sim is util.cos_sim


def test_util_needs_no_model_code() -> None:
    code = """
import sys
import minisbert.util
heavy = ("minisbert.model", "minisbert.modules", "minisbert.storage", "transformers", "tokenizers", "safetensors")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("chunk", "row"), [(500_000, 3), (2, 3)])
def test_rows_that_are_not_finite_rank_nowhere(value: float, chunk: int, row: int) -> None:
    corpus, queries = vectors(5, 4), vectors(3, 4)
    broken = corpus.copy()
    broken[row, 1] = value
    with pytest.raises(InputError, match=f"row {row} of the corpus holds NaN or infinity"):
        util.semantic_search(queries, broken, corpus_chunk_size=chunk)
    with pytest.raises(InputError, match=f"row {row} of the queries holds NaN or infinity"):
        util.semantic_search(broken, corpus, query_chunk_size=min(chunk, 2))
    with pytest.raises(InputError, match=f"row {row} of the corpus"):
        util.paraphrase_mining_embeddings(broken)
    with pytest.raises(InputError, match=f"row {row} of the embeddings"):
        util.community_detection(broken, min_community_size=1)


def test_large_numbers_are_finite() -> None:
    rows = np.full((2, 4), 2e38, np.float32)  # their sum is not
    rows[1, 0] = 0
    assert [hit["corpus_id"] for hit in util.semantic_search(rows[:1] / 1e38, rows / 1e38)[0]] == [0, 1]
    with pytest.raises(InputError, match="got NaN as a score"):
        util.semantic_search(rows, rows, score_function=lambda a, b: torch.full((len(a), len(b)), math.nan))


@pytest.mark.parametrize("score_function", [None, "cos", 5])
def test_score_functions_that_are_none(score_function: Any) -> None:
    with pytest.raises(InputTypeError, match="as score_function; expected a function of two tensors"):
        util.semantic_search(vectors(2, 4), vectors(3, 4), score_function=score_function)


@pytest.mark.parametrize("scores", [None, 5, np.zeros((2, 3)), torch.zeros(3, 2)])
def test_scores_that_are_none(scores: Any) -> None:
    with pytest.raises(InputError, match="expected a tensor with a number for each pair"):
        util.semantic_search(vectors(2, 4), vectors(3, 4), score_function=lambda a, b: scores)


@pytest.mark.parametrize("threshold", [math.nan, "0.5", None, 10**400, [0.5]])
def test_thresholds_that_are_none(threshold: Any) -> None:
    with pytest.raises(ConfigError, match="got threshold"):
        util.community_detection(vectors(3, 4), threshold)


@pytest.mark.parametrize("size", [10**30, np.int64(3)])
def test_sizes_of_any_whole_number(size: Any) -> None:
    rows = vectors(4, 4)
    expected = [[hit["corpus_id"] for hit in hits] for hits in util.semantic_search(rows, rows)]
    got = util.semantic_search(rows, rows, top_k=10**30, query_chunk_size=size, corpus_chunk_size=10**30)
    assert [[hit["corpus_id"] for hit in hits] for hits in got] == expected
    assert util.community_detection(rows, 0.0, min_community_size=1, batch_size=size) == util.community_detection(
        rows, 0.0, min_community_size=1
    )


@pytest.mark.parametrize("model", ["a name", b"", None])
def test_paraphrases_of_no_model(model: Any) -> None:
    with pytest.raises(InputTypeError, match="expected one with encode"):
        util.paraphrase_mining(model, ["a", "b"])
