"""Losses and their gradients, against hand-computed values and a plain computation in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from common import columns, value_and_gradients
from torch import Tensor, nn

from minisbert import util
from minisbert.errors import ConfigError, InputError
from minisbert.losses import CosineSimilarityLoss, Loss, MultipleNegativesRankingLoss

TOLERANCE = 5e-7
BATCHES = (1, 2, 7)
SIMILARITIES = ("cos_sim", "dot_score")


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows at length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# ---- CosineSimilarityLoss -------------------------------------------------------------------------------------------

LABELS = (0.9, -0.4, 0.0, 1.0, 0.31, -1.0, 0.5)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


# Options, the mean of which function of cosines and labels they make the loss, and its derivative by the cosine.
COSINE_LOSSES: dict[str, tuple[dict[str, nn.Module], Callable[..., np.ndarray], Callable[..., np.ndarray]]] = {
    "default": ({}, lambda c, y: (c - y) ** 2, lambda c, y: 2 * (c - y)),
    "absolute error": ({"loss_fct": nn.L1Loss()}, lambda c, y: np.abs(c - y), lambda c, y: np.sign(c - y)),
    "sigmoid": (
        {"cos_score_transformation": nn.Sigmoid()},
        lambda c, y: (sigmoid(c) - y) ** 2,
        lambda c, y: 2 * (sigmoid(c) - y) * sigmoid(c) * sigmoid(-c),
    ),
}


@pytest.mark.parametrize("rows", BATCHES)
@pytest.mark.parametrize("case", COSINE_LOSSES)
def test_cosine_by_hand(case: str, rows: int) -> None:
    options, error, derivative = COSINE_LOSSES[case]
    parts = columns(2, rows, seed=1)
    labels = np.array(LABELS[:rows])
    loss = CosineSimilarityLoss(**options)
    value, gradients = value_and_gradients(lambda copies: loss(copies, torch.tensor(labels)), parts)
    first, second = (part.detach().double().numpy() for part in parts)
    cosines = (unit(first) * unit(second)).sum(axis=1)
    assert value == pytest.approx(error(cosines, labels).mean(), rel=0, abs=TOLERANCE)
    # The derivative of a cosine by its first vector: (b - cos * a) / |first|, with a and b of length 1.
    for got, one, other in ((gradients[0], first, second), (gradients[1], second, first)):
        slopes = derivative(cosines, labels) / rows / np.linalg.norm(one, axis=1)
        expected = slopes[:, None] * (unit(other) - cosines[:, None] * unit(one))
        np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("options", "error", "transformation"),
    [
        ({}, "torch.nn.modules.loss.MSELoss", "torch.nn.modules.linear.Identity"),
        ({"loss_fct": nn.L1Loss()}, "torch.nn.modules.loss.L1Loss", "torch.nn.modules.linear.Identity"),
        (
            {"cos_score_transformation": nn.Sigmoid()},
            "torch.nn.modules.loss.MSELoss",
            "torch.nn.modules.activation.Sigmoid",
        ),
    ],
)
def test_parameters_of_cosine(options: dict[str, Any], error: str, transformation: str) -> None:
    expected = {"loss_fct": error, "cos_score_transformation": transformation}
    assert CosineSimilarityLoss(**options).get_config_dict() == expected


def test_cosine_of_equal_and_opposite_texts() -> None:
    rows = torch.eye(3)
    assert CosineSimilarityLoss()([rows, rows], torch.ones(3)).item() == pytest.approx(0.0, abs=1e-12)
    assert CosineSimilarityLoss()([rows, -rows], torch.ones(3)).item() == pytest.approx(4.0)
    assert CosineSimilarityLoss()([rows, rows * 0], torch.full((3,), 0.5)).item() == pytest.approx(0.25)


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor([1, 0, 1]),
        torch.tensor([True, False, True]),
        torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64),
        torch.tensor([[1.0], [0.0], [1.0]]),
    ],
)
def test_labels_of_any_number_type(labels: Tensor) -> None:
    parts = columns(2, 3)
    expected = CosineSimilarityLoss()(parts, torch.tensor([1.0, 0.0, 1.0])).item()
    assert CosineSimilarityLoss()(parts, labels).item() == expected


# ---- MultipleNegativesRankingLoss -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", BATCHES)
@pytest.mark.parametrize("negatives", [0, 1, 2, 3])
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("scale", [0.5, 20.0, 50])
def test_ranking_by_hand(rows: int, negatives: int, similarity: str, scale: float) -> None:
    parts = columns(2 + negatives, rows, seed=3)
    loss = MultipleNegativesRankingLoss(scale=scale, similarity_fct=getattr(util, similarity))
    value, gradients = value_and_gradients(loss, parts)
    anchors, *candidates = (part.detach().double().numpy() for part in parts)
    others = np.concatenate(candidates)
    left, right = (unit(anchors), unit(others)) if similarity == "cos_sim" else (anchors, others)
    scores = scale * left @ right.T
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    assert value == pytest.approx(-np.log(shares.diagonal()).mean(), rel=1e-6, abs=scale * 1e-7)
    errors = (shares - np.eye(*shares.shape)) * scale / rows
    for got, given, used, slopes in (
        (gradients[0], anchors, left, errors @ right),
        (np.concatenate(gradients[1:]), others, right, errors.T @ left),
    ):
        if similarity == "cos_sim":  # the part along the vector does not change its direction
            slopes = slopes - (slopes * used).sum(axis=1, keepdims=True) * used
            slopes = slopes / np.linalg.norm(given, axis=1, keepdims=True)
        np.testing.assert_allclose(got, slopes, rtol=1e-5, atol=scale * 2e-7)


def test_parameters_of_ranking() -> None:
    parameters = MultipleNegativesRankingLoss().get_config_dict()
    assert (parameters["scale"], parameters["similarity_fct"]) == (20.0, "cos_sim")
    assert (parameters["directions"], parameters["partition_mode"]) == (("query_to_doc",), "joint")
    loss = MultipleNegativesRankingLoss(scale=1.0, similarity_fct=util.dot_score)
    assert loss.get_config_dict() == {**parameters, "scale": 1.0, "similarity_fct": "dot_score"}


def test_ranking_with_one_candidate_is_zero() -> None:
    assert MultipleNegativesRankingLoss()(columns(2, 1)).item() == 0.0


def test_ranking_without_preference_is_the_logarithm_of_the_candidates() -> None:
    parts = [torch.ones(4, 8) for _ in range(3)]
    assert MultipleNegativesRankingLoss()(parts).item() == pytest.approx(math.log(8), abs=1e-6)


def test_a_text_is_ranked_above_its_hard_negatives() -> None:
    rows = torch.eye(3)
    good = MultipleNegativesRankingLoss()([rows, rows, -rows]).item()
    bad = MultipleNegativesRankingLoss()([rows, -rows, rows]).item()
    assert good < 1e-6
    assert bad > 39


def test_ranking_stays_finite_at_large_scores() -> None:
    parts = [part * 100 for part in columns(3, 5)]
    loss = MultipleNegativesRankingLoss(similarity_fct=util.dot_score)
    assert math.isfinite(loss(parts).item())


def test_ranking_ignores_labels() -> None:
    parts = columns(3, 4)
    loss = MultipleNegativesRankingLoss()
    assert loss(parts, torch.arange(4)).item() == loss(parts).item()


# ---- both -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [CosineSimilarityLoss, MultipleNegativesRankingLoss])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(kind: type[Loss], dtype: torch.dtype) -> None:
    parts = [part.detach().to(dtype) for part in columns(2, 7)]
    labels = torch.tensor(LABELS)
    value = kind()(parts, labels)
    assert value.dtype == torch.float32
    assert value.item() == kind()([part.float() for part in parts], labels).item()


@pytest.mark.parametrize("kind", [CosineSimilarityLoss, MultipleNegativesRankingLoss])
def test_gradients_in_float64_are_those_of_the_value(kind: type[Loss]) -> None:
    parts = [part.detach().double().requires_grad_() for part in columns(2, 3)]
    labels = torch.tensor(LABELS[:3], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *parts: kind()(parts, labels), parts)


@pytest.mark.parametrize("kind", [CosineSimilarityLoss, MultipleNegativesRankingLoss])
def test_the_model_may_be_passed_as_for_the_reference(kind: Callable[..., Loss]) -> None:
    model = nn.Linear(2, 2)
    assert list(kind(model).parameters()) == []
    assert list(kind(model=model).parameters()) == []


# ---- messages -------------------------------------------------------------------------------------------------------


def refused(call: Callable[[], object]) -> str:
    """The one-line message of an InputError."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert "expect" in message
    return message


@pytest.mark.parametrize(
    ("loss", "texts", "labels", "parts"),
    [
        (CosineSimilarityLoss(), ("a",), [0.5], ["1 text column(s) ['a']", "CosineSimilarityLoss expects 2", ": name"]),
        (
            CosineSimilarityLoss(),
            ("a", "b", "c"),
            [0.5],
            ["3 text column(s) ['a', 'b', 'c']", "2 and a label", ": name"],
        ),
        (CosineSimilarityLoss(), ("a", "b"), None, ["['a', 'b'] and no labels", "a number for each row", ": call"]),
        (CosineSimilarityLoss(), ("a", "b"), [0, 4.5], ["from 0 to 4.5", "expects -1 to 1", "scale", "--scale=0-5"]),
        (CosineSimilarityLoss(), ("a", "b"), [-3, 1], ["from -3 to 1", "expects -1 to 1", "scale", "--scale=-3-1"]),
        (CosineSimilarityLoss(), ("a", "b"), [0, 1.001], ["1.001", "expects -1 to 1", "scale"]),
        (MultipleNegativesRankingLoss(), ("a",), None, ["1 text column(s) ['a']", "at least 2", "anchor, positive"]),
        (MultipleNegativesRankingLoss(), (), None, ["0 text column(s) []", "at least 2", "anchor, positive"]),
    ],
)
def test_rows_that_do_not_fit(loss: Loss, texts: tuple[str, ...], labels: list[float] | None, parts: list[str]) -> None:
    message = refused(lambda: loss.check_rows(texts, labels))
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("loss", "texts", "labels"),
    [
        (CosineSimilarityLoss(), ("a", "b"), [-1.0, 0.0, 1.0]),
        (CosineSimilarityLoss(loss_fct=nn.L1Loss()), ("a", "b"), [7.0]),
        (CosineSimilarityLoss(cos_score_transformation=nn.Sigmoid()), ("a", "b"), [7.0]),
        (MultipleNegativesRankingLoss(), ("a", "b"), None),
        (MultipleNegativesRankingLoss(), ("a", "b", "c", "d", "e"), [9.0]),
    ],
)
def test_rows_that_fit(loss: Loss, texts: tuple[str, ...], labels: list[float] | None) -> None:
    loss.check_rows(texts, labels)


@pytest.mark.parametrize(
    ("count", "labels", "parts"),
    [
        (2, None, ["no labels", "3 rows"]),
        (2, torch.ones(2), ["2 labels for 3 rows"]),
        (2, torch.ones(3, 2), ["6 labels for 3 rows"]),
        (2, torch.tensor(1.0), ["1 labels for 3 rows"]),
        (1, torch.ones(3), ["1 text column", "2"]),
        (3, torch.ones(3), ["3 text column", "2"]),
    ],
)
def test_cosine_refuses(count: int, labels: Tensor | None, parts: list[str]) -> None:
    message = refused(lambda: CosineSimilarityLoss()(columns(count, 3), labels))
    for part in [*parts, "CosineSimilarityLoss"]:
        assert part in message


@pytest.mark.parametrize("count", [0, 1])
def test_ranking_refuses(count: int) -> None:
    message = refused(lambda: MultipleNegativesRankingLoss()(columns(count, 3)))
    assert f"{count} text column(s)" in message
    assert "anchor, positive" in message


@pytest.mark.parametrize("kind", [CosineSimilarityLoss, MultipleNegativesRankingLoss])
@pytest.mark.parametrize("rows", [(3, 1), (1, 3), (2, 3), (3, 2)])
def test_columns_of_different_length(kind: type[Loss], rows: tuple[int, int]) -> None:
    parts = [columns(1, count)[0] for count in rows]
    message = refused(lambda: kind()(parts, torch.ones(rows[0])))
    assert str(list(rows)) in message


@pytest.mark.parametrize("scale", [0, 0.0, -20.0, math.nan, math.inf])
def test_impossible_scale(scale: float) -> None:
    with pytest.raises(ConfigError, match=r"scale=.*expected a positive"):
        MultipleNegativesRankingLoss(scale=scale)


@pytest.mark.parametrize("kind", [CosineSimilarityLoss, MultipleNegativesRankingLoss])
def test_unknown_options(kind: Callable[..., Loss]) -> None:
    with pytest.raises(TypeError, match="temperature"):
        kind(temperature=0.05)
