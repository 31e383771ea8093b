"""Similarities and small number formats equal the reference's, and hand-computed values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minisbert import util
from minisbert.errors import ConfigError, InputError
from minisbert.similarity import SimilarityFunction, normalize_embeddings, quantize_embeddings

reference = pytest.importorskip("sentence_transformers.util")

MATRIX = ("cos_sim", "dot_score", "euclidean_sim", "manhattan_sim")
PAIRWISE = tuple(f"pairwise_{name}" for name in MATRIX)
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")


def vectors(rows: int, dim: int, *, seed: int) -> np.ndarray:
    """Random float32 rows, the second of them zero."""
    values = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    values[1:2] = 0
    return values


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda values: values,
    "float64 array": lambda values: values.astype(np.float64),
    "float16 array": lambda values: values.astype(np.float16),
    "tensor": torch.from_numpy,
    "float64 tensor": lambda values: torch.from_numpy(values).double(),
    "float16 tensor": lambda values: torch.from_numpy(values).half(),
    "bfloat16 tensor": lambda values: torch.from_numpy(values).bfloat16(),
    "list of lists": lambda values: values.tolist(),
    "list of arrays": list,
    "list of tensors": lambda values: list(torch.from_numpy(values)),
    "list of bfloat16 tensors": lambda values: list(torch.from_numpy(values).bfloat16()),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MATRIX)
def test_matrix_functions(name: str, form: str) -> None:
    a, b = FORMS[form](vectors(5, 7, seed=0)), FORMS[form](vectors(3, 7, seed=1))
    got, expected = getattr(util, name)(a, b), getattr(reference, name)(a, b)
    assert got.shape == (5, 3)
    assert got.dtype == expected.dtype
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", PAIRWISE)
def test_pairwise_functions(name: str, form: str) -> None:
    a, b = FORMS[form](vectors(5, 7, seed=0)), FORMS[form](vectors(5, 7, seed=1))
    got, expected = getattr(util, name)(a, b), getattr(reference, name)(a, b)
    assert got.shape == (5,)
    assert got.dtype == expected.dtype
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MATRIX)
@pytest.mark.parametrize("form", ["array", "tensor", "list of lists", "float16 tensor"])
def test_one_vector_counts_as_a_row(name: str, form: str) -> None:
    a, b = vectors(4, 6, seed=2), vectors(1, 6, seed=3)[0]
    function, theirs = getattr(util, name), getattr(reference, name)
    for left, right, shape in ((a, b, (4, 1)), (b, a, (1, 4)), (b, b, (1, 1))):
        got = function(FORMS[form](left), FORMS[form](right))
        assert got.shape == shape
        torch.testing.assert_close(got, theirs(FORMS[form](left), FORMS[form](right)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PAIRWISE)
def test_pairwise_of_two_vectors(name: str) -> None:
    a, b = vectors(1, 6, seed=4), vectors(1, 6, seed=5)
    torch.testing.assert_close(getattr(util, name)(a[0], b[0]), getattr(util, name)(a, b), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cos_sim", [[0.6, 0.8, 0.0], [0.0, 0.0, 0.0]]),
        ("dot_score", [[3.0, 8.0, 0.0], [0.0, 0.0, 0.0]]),
        ("euclidean_sim", [[-(20**0.5), -(13**0.5), -5.0], [-1.0, -2.0, 0.0]]),
        ("manhattan_sim", [[-6.0, -5.0, -7.0], [-1.0, -2.0, 0.0]]),
    ],
)
def test_values_by_hand(name: str, expected: list[list[float]]) -> None:
    a, b = [[3.0, 4.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]
    torch.testing.assert_close(getattr(util, name)(a, b), torch.tensor(expected), rtol=0, atol=1e-6)
    pairs = getattr(util, f"pairwise_{name}")(a, b[:2])
    torch.testing.assert_close(pairs, torch.tensor([expected[0][0], expected[1][1]]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MATRIX)
def test_matrix_and_pairwise_agree(name: str) -> None:
    a, b = vectors(6, 9, seed=6), vectors(6, 9, seed=7)
    matrix, pairs = getattr(util, name)(a, b), getattr(util, f"pairwise_{name}")(a, b)
    torch.testing.assert_close(matrix.diagonal(), pairs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", MATRIX)
def test_many_rows(name: str) -> None:
    a, b = vectors(40, 384, seed=8), vectors(30, 384, seed=9)
    got, expected = getattr(util, name)(a, b), getattr(reference, name)(a, b)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", [*MATRIX, *PAIRWISE])
def test_single_and_double_precision_meet_in_double(name: str) -> None:
    a, b = vectors(4, 6, seed=16), vectors(4, 6, seed=17)
    got = getattr(util, name)(a, b.astype(np.float64))
    torch.testing.assert_close(got, getattr(util, name)(a.astype(np.float64), b.astype(np.float64)), rtol=0, atol=0)


@pytest.mark.parametrize("name", [*MATRIX, *PAIRWISE])
@pytest.mark.parametrize("form", [np.int8, np.uint8, np.int64, list])
def test_integers_count_as_floats(name: str, form: Any) -> None:
    values = [[100, 3, 120], [0, 4, 90]]
    got = getattr(util, name)(values if form is list else np.array(values, form), values)
    torch.testing.assert_close(got, getattr(util, name)(np.float32(values), np.float32(values)), rtol=0, atol=0)


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("shapes", [((2, 3), (3, 3)), ((2, 3), (2, 4)), ((3,), (2, 3)), ((1, 3), (2, 3))])
def test_pairwise_needs_equal_shapes(name: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = (np.ones(shape, np.float32) for shape in shapes)
    with pytest.raises(InputError, match="got .*3"):
        getattr(util, name)(a, b)


@pytest.mark.parametrize("name", MATRIX)
@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)),
        (np.ones((2, 2, 3), np.float32), np.ones((2, 3), np.float32)),
        ([[1.0, 2.0], [1.0]], [[1.0, 2.0]]),
        (["a", "b"], ["c"]),
    ],
    ids=["other dimension", "three dimensions", "ragged list", "texts"],
)
def test_matrix_functions_refuse(name: str, a: Any, b: Any) -> None:
    with pytest.raises(InputError, match="expected"):
        getattr(util, name)(a, b)


def test_gradients_of_pairwise_euclidean_at_equal_rows_are_finite() -> None:
    a = torch.ones(2, 3, requires_grad=True)
    util.pairwise_euclidean_sim(a, torch.ones(2, 3)).sum().backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()


def test_normalize_embeddings() -> None:
    values = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-20, 0.0]])
    got = normalize_embeddings(values)
    torch.testing.assert_close(got, reference.normalize_embeddings(values), rtol=0, atol=0)
    assert got[0].tolist() == pytest.approx([0.6, 0.8])
    assert got[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_functions_by_name(name: str) -> None:
    function = SimilarityFunction.of(name)
    theirs = reference.SimilarityFunction
    a, b = vectors(4, 5, seed=10), vectors(4, 5, seed=11)
    torch.testing.assert_close(function.matrix(a, b), theirs.to_similarity_fn(name)(a, b), rtol=0, atol=1e-6)
    torch.testing.assert_close(function.pairwise(a, b), theirs.to_similarity_pairwise_fn(name)(a, b), rtol=0, atol=1e-6)
    assert SimilarityFunction.of(function) is function


@pytest.mark.parametrize("name", ["cos", "COSINE", "", None, 3])
def test_unknown_function(name: Any) -> None:
    with pytest.raises(ConfigError, match="cosine, dot, euclidean, manhattan"):
        SimilarityFunction.of(name)


# ---- quantization ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("form", ["array", "tensor", "list of lists", "list of arrays", "list of tensors"])
def test_quantization(precision: Any, form: str) -> None:
    values = vectors(120, 16, seed=12)
    values[:, 3] = 0.25  # a dimension without spread
    values[0] = 0
    got = quantize_embeddings(FORMS[form](values), precision)
    expected = reference.quantize_embeddings(values, precision)
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_ranges_and_calibration(precision: Any) -> None:
    values, others = vectors(20, 8, seed=13) * 2, vectors(150, 8, seed=14)
    ranges = np.stack([others.min(axis=0), others.max(axis=0)])
    expected = reference.quantize_embeddings(values, precision, ranges=ranges)
    np.testing.assert_array_equal(quantize_embeddings(values, precision, ranges=ranges), expected)
    np.testing.assert_array_equal(quantize_embeddings(values, precision, calibration_embeddings=others), expected)
    np.testing.assert_array_equal(
        quantize_embeddings(torch.from_numpy(values), precision, calibration_embeddings=torch.from_numpy(others)),
        expected,
    )
    info = np.iinfo(expected.dtype)
    assert {info.min, info.max} <= set(expected.flatten().tolist())  # values beyond the ranges are clipped


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_one_embedding_with_ranges(precision: Any) -> None:
    ranges = np.array([[0.0, -1.0], [1.0, 1.0]], np.float32)
    got = quantize_embeddings(np.array([[0.5, 2.0]], np.float32), precision, ranges=ranges)
    np.testing.assert_array_equal(got, [[127, 255]] if precision == "uint8" else [[-1, 127]])


def test_bits_by_hand() -> None:
    values = np.array([[1, -1, 0, 2, 0, 0, 0, 3], [-1, 0, 0, 0, 0, 0, 0, 0]], np.float32)
    np.testing.assert_array_equal(quantize_embeddings(values, "ubinary"), [[0b10010001], [0]])
    np.testing.assert_array_equal(quantize_embeddings(values, "binary"), [[0b10010001 - 128], [-128]])


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_quantized(precision: Any, dtype: torch.dtype) -> None:
    values: Tensor = torch.from_numpy(vectors(5, 16, seed=15)).to(dtype)
    np.testing.assert_array_equal(
        quantize_embeddings(values, precision), reference.quantize_embeddings(values.float(), precision)
    )


def test_gradients_are_left_behind() -> None:
    values = torch.ones(2, 8, requires_grad=True)
    np.testing.assert_array_equal(quantize_embeddings(values, "ubinary"), [[255], [255]])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_embeddings(precision: Any) -> None:
    empty = np.zeros((0, 16), np.float32)
    got, expected = quantize_embeddings(empty, precision), reference.quantize_embeddings(empty, precision)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize(
    ("values", "precision", "options", "message"),
    [
        (np.ones((1, 8)), "int8", {}, r"1 embedding.*ranges or calibration_embeddings"),
        (np.ones(8), "uint8", {}, r"1 embedding.*ranges or calibration_embeddings"),
        (np.ones((3, 8)), "int8", {"calibration_embeddings": np.ones((1, 8))}, r"1 embedding.*expected many"),
        (np.ones((3, 12)), "binary", {}, r"12 dimensions.*multiple of 8.*truncate_dim"),
        (np.ones((3, 12)), "ubinary", {}, r"12 dimensions.*multiple of 8.*truncate_dim"),
        (np.ones((3, 8)), "uint8", {"ranges": np.ones((2, 7))}, r"ranges.*\(2, 7\).*expected \(2, 8\)"),
        (np.ones((3, 8)), "uint8", {"ranges": np.ones((8, 2))}, r"ranges.*\(8, 2\).*expected \(2, 8\)"),
        (np.ones((3, 8)), "uint8", {"calibration_embeddings": np.ones((4, 7))}, r"\b7\b.*expected .*\b8\b"),
        (np.ones((3, 8), np.int8), "int8", {}, r"int8.*expected float"),
        (np.ones((3, 8), np.uint8), "ubinary", {}, r"uint8.*expected float"),
    ],
)
def test_what_cannot_be_quantized(values: Any, precision: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        quantize_embeddings(values, precision, **options)


@pytest.mark.parametrize("precision", ["int4", "float16", "", None])
def test_unknown_precision(precision: Any) -> None:
    with pytest.raises(ConfigError, match="float32, int8, uint8, binary or ubinary"):
        quantize_embeddings(np.ones((2, 8)), precision)
