"""Similarities and small number formats, against hand-computed values and plain definitions in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from common import FORMS, PRECISIONS, SIMILARITIES, difference, vectors

from minisbert import util
from minisbert.errors import ConfigError, InputError
from minisbert.similarity import SimilarityFunction, normalize_embeddings, quantize_embeddings

PAIRWISE = tuple(f"pairwise_{name}" for name in SIMILARITIES)


def defined(name: str, a: Any, b: Any) -> np.ndarray:
    """The similarity of one pair of rows after another, in float64."""
    left, right = (
        np.stack([np.asarray(row.double() if isinstance(row, torch.Tensor) else row, np.float64) for row in rows])
        for rows in (a, b)
    )

    def one(x: np.ndarray, y: np.ndarray) -> float:
        if name == "cos_sim":
            lengths = np.sqrt((x * x).sum() * (y * y).sum())
            return float((x * y).sum() / lengths) if lengths else 0.0
        if name == "dot_score":
            return float((x * y).sum())
        return -float(np.sqrt(((x - y) ** 2).sum()) if name == "euclidean_sim" else np.abs(x - y).sum())

    return np.array([[one(x, y) for y in right] for x in left])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SIMILARITIES)
def test_matrix_functions(name: str, form: str) -> None:
    a, b = (FORMS[form](vectors(rows, 7, seed=rows, zero_row=1)) for rows in (5, 3))
    got = getattr(util, name)(a, b)
    assert got.shape == (5, 3)
    assert got.dtype == (torch.float64 if "float64" in form else torch.float32)
    assert difference(got, defined(name, a, b)) <= (1e-13 if "float64" in form else 3e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SIMILARITIES)
def test_pairwise_functions(name: str, form: str) -> None:
    a, b = (FORMS[form](vectors(5, 7, seed=seed, zero_row=1)) for seed in (0, 1))
    got = getattr(util, f"pairwise_{name}")(a, b)
    assert got.shape == (5,)
    assert got.dtype == (torch.float64 if "float64" in form else torch.float32)
    assert difference(got, defined(name, a, b).diagonal()) <= (1e-13 if "float64" in form else 3e-6)


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("form", ["array", "tensor", "list of lists", "float16 tensor"])
def test_one_vector_counts_as_a_row(name: str, form: str) -> None:
    a, b = vectors(4, 6, seed=2), vectors(1, 6, seed=3)
    function, make = getattr(util, name), FORMS[form]
    for left, right, expected in ((a, b[0], (a, b)), (b[0], a, (b, a)), (b[0], b[0], (b, b))):
        got = function(make(left), make(right))
        assert got.shape == (len(expected[0]), len(expected[1]))
        assert difference(got, function(*map(make, expected))) == 0


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


@pytest.mark.parametrize("name", SIMILARITIES)
def test_matrix_and_pairwise_agree(name: str) -> None:
    a, b = vectors(6, 9, seed=6), vectors(6, 9, seed=7)
    matrix, pairs = getattr(util, name)(a, b), getattr(util, f"pairwise_{name}")(a, b)
    torch.testing.assert_close(matrix.diagonal(), pairs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_many_rows(name: str) -> None:
    a, b = vectors(40, 384, seed=8), vectors(30, 384, seed=9)
    expected = defined(name, a, b)
    assert difference(getattr(util, name)(a, b), expected) <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("name", [*SIMILARITIES, *PAIRWISE])
def test_single_and_double_precision_meet_in_double(name: str) -> None:
    a, b = vectors(4, 6, seed=16), vectors(4, 6, seed=17)
    got = getattr(util, name)(a, b.astype(np.float64))
    torch.testing.assert_close(got, getattr(util, name)(a.astype(np.float64), b.astype(np.float64)), rtol=0, atol=0)


@pytest.mark.parametrize("name", [*SIMILARITIES, *PAIRWISE])
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


@pytest.mark.parametrize("name", SIMILARITIES)
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
    assert got[0].tolist() == pytest.approx([0.6, 0.8])
    assert got[1].tolist() == [0.0, 0.0]
    assert got[2].tolist() == pytest.approx([1e-8, 0.0], rel=1e-6)  # lengths count as 1e-12 at least


@pytest.mark.parametrize(
    ("name", "function"), list(zip(("cosine", "dot", "euclidean", "manhattan"), SIMILARITIES, strict=True))
)
def test_functions_by_name(name: str, function: str) -> None:
    found = SimilarityFunction.of(name)
    assert found.matrix is getattr(util, function)
    assert found.pairwise is getattr(util, f"pairwise_{function}")
    assert SimilarityFunction.of(found) is found


@pytest.mark.parametrize("name", ["cos", "COSINE", "", None, 3])
def test_unknown_function(name: Any) -> None:
    with pytest.raises(ConfigError, match="cosine, dot, euclidean, manhattan"):
        SimilarityFunction.of(name)


# ---- quantization ---------------------------------------------------------------------------------------------------


def known_levels() -> tuple[np.ndarray, np.ndarray]:
    """Embeddings from -2 to 2 in steps of 1/64, each a part of a step above its level; and the levels, 0 to 255.

    The numbers are exact in float32, so that no rounding decides. The last dimension has no spread.
    """
    draw = np.random.default_rng(12)
    levels = draw.integers(0, 256, size=(120, 16))
    levels[0], levels[1] = 0, 255
    parts = draw.integers(0, 8, size=levels.shape) / 8
    parts[:2] = 0
    values = (levels + parts) / 64 - 2
    values[:, -1], levels[:, -1] = 0.25, 0
    # Nothing may stand above the highest level.
    values[levels == 255] = 255 / 64 - 2
    return values.astype(np.float32), levels


@pytest.mark.parametrize("form", ["array", "tensor", "list of lists", "list of arrays", "list of tensors"])
def test_levels_of_eight_bits(form: str) -> None:
    values, levels = known_levels()
    unsigned, signed = (quantize_embeddings(FORMS[form](values), precision) for precision in ("uint8", "int8"))
    assert (unsigned.dtype, signed.dtype) == (np.uint8, np.int8)
    np.testing.assert_array_equal(unsigned, levels)
    np.testing.assert_array_equal(signed, levels - 128)


@pytest.mark.parametrize("form", ["array", "tensor", "list of lists", "list of arrays", "list of tensors"])
def test_a_bit_says_that_a_number_is_positive(form: str) -> None:
    values = vectors(20, 16, seed=12, zero_row=0)
    unsigned, signed = (quantize_embeddings(FORMS[form](values), precision) for precision in ("ubinary", "binary"))
    expected = [[sum(int(row[start + bit] > 0) << (7 - bit) for bit in range(8)) for start in (0, 8)] for row in values]
    assert (unsigned.dtype, signed.dtype) == (np.uint8, np.int8)
    assert unsigned.tolist() == expected
    np.testing.assert_array_equal(signed, np.array(expected) - 128)
    floats = quantize_embeddings(FORMS[form](values), "float32")
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats, values)


def test_quantization_as_the_reference_rounds() -> None:
    values = vectors(6, 4, seed=12, zero_row=0)
    values[1:, 2] = 0.25
    # Written down from sentence-transformers 6.2.0: rounding takes the third dimension's highest value to 254.
    expected = [
        [138, 139, 0, 108],
        [255, 0, 254, 0],
        [130, 255, 254, 149],
        [0, 156, 254, 255],
        [202, 249, 254, 159],
        [185, 99, 254, 99],
    ]
    assert quantize_embeddings(values, "uint8").tolist() == expected
    np.testing.assert_array_equal(quantize_embeddings(values, "int8"), np.array(expected) - 128)


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_ranges_and_calibration(precision: Any) -> None:
    others, _ = known_levels()
    ranges = np.stack([others.min(axis=0), others.max(axis=0)])
    values = np.tile(np.float32([[-2.0], [-9.0], [0.0], [1 / 64], [9.0]]), 16)
    expected = np.tile([[0], [0], [128], [129], [255]], 16)  # what lies beyond the ranges is clipped
    expected[:, -1] = [0, 0, 0, 0, 8]  # a dimension without spread, of 0.25, counts in steps of 1
    expected -= 128 if precision == "int8" else 0
    np.testing.assert_array_equal(quantize_embeddings(values, precision, ranges=ranges), expected)
    for form in ("array", "tensor", "list of lists"):
        got = quantize_embeddings(FORMS[form](values), precision, calibration_embeddings=FORMS[form](others))
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_one_embedding_with_ranges(precision: Any) -> None:
    ranges = np.array([[0.0, -1.0], [1.0, 1.0]], np.float32)
    got = quantize_embeddings(np.array([[0.5, 2.0]], np.float32), precision, ranges=ranges)
    np.testing.assert_array_equal(got, [[127, 255]] if precision == "uint8" else [[-1, 127]])


def test_bits_by_hand() -> None:
    values = np.array([[1, -1, 0, 2, 0, 0, 0, 3], [-1, 0, 0, 0, 0, 0, 0, 0]], np.float32)
    np.testing.assert_array_equal(quantize_embeddings(values, "ubinary"), [[0b10010001], [0]])
    np.testing.assert_array_equal(quantize_embeddings(values, "binary"), [[0b10010001 - 128], [-128]])
    np.testing.assert_array_equal(
        quantize_embeddings(values[:, :5], "ubinary"), [[0b10010000], [0]]
    )  # filled with zeros
    nine = np.concatenate([values, values[:, :1]], axis=1)
    np.testing.assert_array_equal(quantize_embeddings(nine, "ubinary"), [[0b10010001, 0b10000000], [0, 0]])


def test_ranges_in_double_precision_are_rounded() -> None:
    """Ranges count in float32, as in the reference: 0.1 is a little more there, and falls below the first step."""
    ranges = np.array([[0.1], [25.6]])
    assert quantize_embeddings(np.array([[0.1]]), "int8", ranges=ranges).tolist() == [[-128]]
    step = float(np.float32(25.6) - np.float32(0.1)) / 255
    below, above = (float(np.float32(0.1)) + step * 3 * factor for factor in (1 - 1e-9, 1 + 1e-6))
    assert quantize_embeddings(np.array([[below], [above]]), "uint8", ranges=ranges).tolist() == [[2], [3]]


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_quantized(precision: Any, dtype: torch.dtype) -> None:
    values = torch.from_numpy(vectors(5, 16, seed=15)).to(dtype)
    got = quantize_embeddings(values, precision)
    np.testing.assert_array_equal(got, quantize_embeddings(values.float(), precision))


def test_gradients_are_left_behind() -> None:
    values = torch.ones(2, 8, requires_grad=True)
    np.testing.assert_array_equal(quantize_embeddings(values, "ubinary"), [[255], [255]])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_embeddings(precision: Any) -> None:
    got = quantize_embeddings(np.zeros((0, 16), np.float32), precision)
    assert got.shape == (0, 2 if "binary" in precision else 16)
    assert got.dtype == {"binary": "int8", "ubinary": "uint8"}.get(precision, precision)


@pytest.mark.parametrize(
    ("values", "precision", "options", "message"),
    [
        (np.ones((1, 8)), "int8", {}, r"1 embedding.*ranges or calibration_embeddings"),
        (np.ones(8), "uint8", {}, r"1 embedding.*ranges or calibration_embeddings"),
        (np.ones((3, 8)), "int8", {"calibration_embeddings": np.ones((1, 8))}, r"1 embedding.*expected at least 2"),
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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_only_finite_numbers_are_quantized(value: float, precision: Any) -> None:
    rows = vectors(4, 8)
    broken = rows.copy()
    broken[2, 5] = value
    with pytest.raises(InputError, match="row 2 of the embeddings holds NaN or infinity"):
        quantize_embeddings(broken, precision)
    if "int" in precision:
        with pytest.raises(InputError, match="row 2 of the calibration embeddings"):
            quantize_embeddings(rows, precision, calibration_embeddings=broken)
    np.testing.assert_array_equal(quantize_embeddings(broken, "float32"), broken)


def test_ranges_that_are_none() -> None:
    rows = vectors(4, 8)
    low, high = rows.min(0), rows.max(0)
    with pytest.raises(InputError, match=r"got the range .* for dimension 0; expected the lowest first"):
        quantize_embeddings(rows, "int8", ranges=np.stack([high, low]))
    with pytest.raises(InputError, match="row 1 of the ranges holds NaN or infinity"):
        quantize_embeddings(rows, "int8", ranges=np.stack([low, high * np.nan]))
    for ranges in ("ab", [[1], [2, 3]], 5, object()):
        with pytest.raises(InputError):
            quantize_embeddings(rows, "int8", ranges=ranges)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rows",
    [{"a": 1}, {1, 2}, "text", None, object(), np.zeros((2, 2), complex), torch.zeros(2, 2).to_sparse(), [[1], [2, 3]]],
)
def test_embeddings_that_are_none(rows: Any) -> None:
    with pytest.raises(InputError):
        util.cos_sim(rows, vectors(2, 2))


@pytest.mark.parametrize("truncate_dim", ["3", 1.5, [1], 0, -2])
def test_dimensions_that_are_none(truncate_dim: Any) -> None:
    with pytest.raises(ConfigError, match="got truncate_dim"):
        util.truncate_embeddings(vectors(2, 4), truncate_dim)
