"""Similarities and small number formats equal the reference's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from common import FORMS, PRECISIONS, SIMILARITIES, difference, vectors

from minisbert import util
from minisbert.similarity import SimilarityFunction, normalize_embeddings, quantize_embeddings

reference = pytest.importorskip("sentence_transformers.util")
pytestmark = pytest.mark.parity

BOUND = 1e-6


@pytest.mark.parametrize("name", SIMILARITIES)
def test_matrix_functions(name: str, compare: Callable[..., None]) -> None:
    differences = []
    for make in FORMS.values():
        a, b = make(vectors(5, 7, zero_row=1)), make(vectors(3, 7, seed=1, zero_row=1))
        got, expected = getattr(util, name)(a, b), getattr(reference, name)(a, b)
        assert got.dtype == expected.dtype
        differences.append(difference(got, expected))
    compare("similarity functions: matrix", max(differences), BOUND, cases=15 * len(FORMS))


@pytest.mark.parametrize("name", SIMILARITIES)
def test_pairwise_functions(name: str, compare: Callable[..., None]) -> None:
    differences = []
    for make in FORMS.values():
        a, b = make(vectors(5, 7, zero_row=1)), make(vectors(5, 7, seed=1, zero_row=1))
        got, expected = (getattr(package, f"pairwise_{name}")(a, b) for package in (util, reference))
        assert got.dtype == expected.dtype
        differences.append(difference(got, expected))
    compare("similarity functions: pairwise", max(differences), BOUND, cases=5 * len(FORMS))


@pytest.mark.parametrize("dim", [8, 7])
def test_angle_similarity(dim: int, compare: Callable[..., None]) -> None:
    a, b = vectors(50, dim, zero_row=3), vectors(50, dim, seed=1)
    largest = difference(util.pairwise_angle_sim(a, b), reference.pairwise_angle_sim(a, b))
    compare("similarity functions: pairwise", largest, BOUND, cases=50)


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("form", ["array", "tensor", "list of lists", "float16 tensor"])
def test_one_vector_counts_as_a_row(name: str, form: str, compare: Callable[..., None]) -> None:
    a, b = vectors(4, 6, seed=2), vectors(1, 6, seed=3)[0]
    ours, theirs = getattr(util, name), getattr(reference, name)
    differences = [
        difference(ours(FORMS[form](left), FORMS[form](right)), theirs(FORMS[form](left), FORMS[form](right)))
        for left, right in ((a, b), (b, a), (b, b))
    ]
    compare("similarity functions: matrix", max(differences), BOUND, cases=9)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_many_rows(name: str, compare: Callable[..., None]) -> None:
    a, b = vectors(40, 384, seed=8), vectors(30, 384, seed=9)
    largest = difference(getattr(util, name)(a, b), getattr(reference, name)(a, b))
    compare("similarity functions: matrix", largest, BOUND, cases=1200)


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_functions_by_name(name: str, compare: Callable[..., None]) -> None:
    function, theirs = SimilarityFunction.of(name), reference.SimilarityFunction
    a, b = vectors(4, 5, seed=10), vectors(4, 5, seed=11)
    matrix = difference(function.matrix(a, b), theirs.to_similarity_fn(name)(a, b))
    compare("similarity functions: matrix", matrix, BOUND, cases=16)
    pairwise = difference(function.pairwise(a, b), theirs.to_similarity_pairwise_fn(name)(a, b))
    compare("similarity functions: pairwise", pairwise, BOUND, cases=4)


def test_names_of_functions() -> None:
    ours, theirs = (
        {name: member.value for name, member in kind.__members__.items()}
        for kind in (SimilarityFunction, reference.SimilarityFunction)
    )
    assert ours.items() <= theirs.items()


def test_normalize_embeddings(compare: Callable[..., None]) -> None:
    values = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-20, 0.0]])
    largest = difference(normalize_embeddings(values), reference.normalize_embeddings(values))
    compare("normalize_embeddings", largest, 0, cases=6)


# ---- quantization ---------------------------------------------------------------------------------------------------


def equal_entries(got: np.ndarray, expected: np.ndarray, compare: Callable[..., None]) -> None:
    """Of one type, one shape and, as the row of the table says, with the same numbers."""
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    compare("quantize_embeddings", int((got != expected).sum()), 0, cases=got.size)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("form", ["array", "tensor", "list of lists", "list of arrays", "list of tensors"])
def test_quantization(precision: Any, form: str, compare: Callable[..., None]) -> None:
    values = vectors(120, 16, seed=12, zero_row=0)
    values[:, 3] = 0.25  # a dimension without spread
    if form == "array":
        for dim in (1, 7, 12, 15):
            equal_entries(
                quantize_embeddings(values[:, :dim], precision),
                reference.quantize_embeddings(values[:, :dim], precision),
                compare,
            )
    got = quantize_embeddings(FORMS[form](values), precision)
    equal_entries(got, reference.quantize_embeddings(values, precision), compare)


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_ranges_and_calibration(precision: Any, compare: Callable[..., None]) -> None:
    values, others = vectors(20, 8, seed=13) * 2, vectors(150, 8, seed=14)
    ranges = np.stack([others.min(axis=0), others.max(axis=0)])
    doubles = others * (1 + 1e-9)
    exact = np.stack([doubles.min(axis=0), doubles.max(axis=0)])
    for options in (
        *({"ranges": ranges}, {"calibration_embeddings": others}),
        *({"ranges": exact.astype(np.float64)}, {"calibration_embeddings": doubles.astype(np.float64)}),
    ):
        expected = reference.quantize_embeddings(values, precision, **options)
        equal_entries(quantize_embeddings(values, precision, **options), expected, compare)


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_quantized(precision: Any, dtype: torch.dtype, compare: Callable[..., None]) -> None:
    values = torch.from_numpy(vectors(5, 16, seed=15)).to(dtype)
    got = quantize_embeddings(values, precision)
    equal_entries(got, reference.quantize_embeddings(values.float(), precision), compare)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_embeddings(precision: Any, compare: Callable[..., None]) -> None:
    empty = np.zeros((0, 16), np.float32)
    got, expected = quantize_embeddings(empty, precision), reference.quantize_embeddings(empty, precision)
    equal_entries(got, expected, compare)
