"""Losses by name, their options, the rows they take, and their messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from common import columns
from loss_cases import CASES, DIM, Case, made
from torch import Tensor, nn

from minisbert import losses, util
from minisbert.errors import ConfigError, InputError
from minisbert.losses import Loss, loss_by_name, loss_names, needs_model, with_classes


class Sized(nn.Module):
    """A model with embeddings of a size."""

    def get_sentence_embedding_dimension(self) -> int:
        return DIM


MODEL = Sized()


# ---- by name --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_round_trip_by_name(case: Case) -> None:
    """A loss is made again from what a card prints, in JSON."""
    loss = made(case, losses, util, MODEL)
    config = loss.get_config_dict()
    guide = {"guide": config.pop("guide")} if "guide" in config else {}
    printed = json.loads(json.dumps(config)) | guide
    again = loss_by_name(case.loss, printed, model=MODEL)
    assert type(again) is type(loss)
    assert again.get_config_dict() == loss.get_config_dict()


@pytest.mark.parametrize("name", loss_names())
def test_by_name_with_defaults(name: str) -> None:
    needed = {"SoftmaxLoss": {"num_labels": 2}, "MatryoshkaLoss": {"loss": "CoSENTLoss", "matryoshka_dims": [DIM, 4]}}
    needed["Matryoshka2dLoss"], needed["AdaptiveLayerLoss"] = needed["MatryoshkaLoss"], {"loss": "CoSENTLoss"}
    if name == "DenoisingAutoEncoderLoss":
        pytest.skip("needs an encoder: see test_denoising.py")
    needed["GISTEmbedLoss"] = needed["CachedGISTEmbedLoss"] = {"guide": MODEL}
    loss = loss_by_name(name, needed.get(name), model=MODEL)
    assert type(loss).__name__ == name
    assert name in losses.__all__


@pytest.mark.parametrize(
    ("inner", "parameters"),
    [
        ("MatryoshkaLoss", {"loss": "CoSENTLoss", "matryoshka_dims": [DIM, 4], "matryoshka_weights": [1, 0.5]}),
        ("GISTEmbedLoss", {"guide": MODEL, "temperature": 0.1}),
        ("MultipleNegativesRankingLoss", {"scale": 30.0}),
        ("MSELoss", {"projection_dim": 5}),
    ],
)
@pytest.mark.parametrize("outer", ["AdaptiveLayerLoss", "MatryoshkaLoss", "Matryoshka2dLoss"])
@pytest.mark.parametrize("form", ["together", "apart"])
def test_a_loss_inside_another_with_parameters(form: str, outer: str, inner: str, parameters: dict[str, Any]) -> None:
    """They stand beside those of the outer loss, or by themselves where both have some of one name."""
    own = {} if outer == "AdaptiveLayerLoss" else {"matryoshka_dims": [DIM]}
    own |= {} if outer == "MatryoshkaLoss" else {"kl_div_weight": 0.5}
    if form == "together" and inner == "MatryoshkaLoss":
        pytest.skip("has a loss and sizes of its own")
    given = {"loss": inner, **parameters} if form == "together" else {"loss": {inner: parameters}}
    if inner == "MSELoss":
        assert needs_model(outer, {**own, **given})
    loss: Any = loss_by_name(outer, {**own, **given}, model=MODEL)
    assert loss.get_config_dict()["loss"] == inner
    chain = [loss]
    while isinstance(getattr(chain[-1], "loss", None), Loss):
        chain.append(chain[-1].loss)
    got = next(one for one in reversed(chain) if type(one).__name__ == inner).get_config_dict()
    for name, value in parameters.items():
        assert (list(got[name]) if isinstance(got[name], tuple) else got[name]) == value


def test_classes_of_a_loss_inside_another_are_counted() -> None:
    parameters = with_classes("AdaptiveLayerLoss", {"loss": "SoftmaxLoss"}, [0.0, 2.0])
    loss: Any = loss_by_name("AdaptiveLayerLoss", parameters, model=MODEL)
    assert loss.loss.num_labels == 3


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        (
            "AdaptiveLayerLoss",
            {"loss": "CoSENTLoss", "margin": 1},
            "got margin=1 for AdaptiveLayerLoss; expected one of its",
        ),
        (
            "AdaptiveLayerLoss",
            {"loss": {"CoSENTLoss": {"margin": 1}}},
            "got margin=1 for CoSENTLoss; expected one of its",
        ),
        ("AdaptiveLayerLoss", {"loss": {"CoSENTLoss": 1}}, "expected a name, or a dict of one to its parameters"),
        ("AdaptiveLayerLoss", {"loss": 1}, "got loss=1; expected a name, or a dict of one to its parameters"),
        ("AdaptiveLayerLoss", {"loss": "MatryoshkaLoss"}, "add it, or --loss-option loss=VALUE"),
        ("MatryoshkaLoss", {"loss": "CoSENTLoss"}, "got no matryoshka_dims for MatryoshkaLoss; expected it"),
        ("MatryoshkaLoss", {"loss": "os.system", "matryoshka_dims": [1]}, "got the loss os.system; expected one of"),
        ("MatryoshkaLoss", {"loss": "CoSENTLoss", "matryoshka_dims": 4}, "matryoshka_dims=4; expected a list"),
        ("MatryoshkaLoss", {"loss": "CoSENTLoss", "matryoshka_dims": [0.5]}, "0.5; expected a whole number"),
        (
            "GISTEmbedLoss",
            {"guide": "SentenceTransformer"},
            "guide='SentenceTransformer'; expected a model, which cards",
        ),
        ("GISTEmbedLoss", {}, "got no guide for GISTEmbedLoss"),
        ("SoftmaxLoss", {"num_labels": 2}, "got the model NoneType; SoftmaxLoss expects one that embeds"),
        ("MSELoss", {"projection_dim": 2}, "got the model NoneType; MSELoss expects one that embeds"),
        ("SoftmaxLoss", {"num_labels": "2"}, "num_labels='2'; expected a whole number"),
        ("TripletLoss", {"distance_metric": "mine"}, "expected one of TripletDistanceMetric.COSINE, "),
        ("ContrastiveLoss", {"size_average": "no"}, "size_average='no'; expected true or false"),
        ("AnglELoss", {"similarity_fct": "pairwise_cos_sim"}, "expected 'pairwise_angle_sim': minisbert supports"),
        ("MultipleNegativesRankingLoss", {"gather_across_devices": 1}, "expected true or false"),
        ("MultipleNegativesRankingLoss", {"directions": [["x"]]}, "expected a name"),
        ("MultipleNegativesRankingLoss", {"directions": ["x"]}, "expected a tuple with some of query_to_doc, "),
        ("GlobalOrthogonalRegularizationLoss", {"aggregation": ["mean"]}, "expected one of mean, sum"),
        ("MegaBatchMarginLoss", {"mini_batch_size": None}, "expected a whole number"),
    ],
)
def test_parameters_that_do_not_fit(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loss_by_name(name, parameters)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.CoSENTLoss(scale=0), "scale=0; expected a positive number"),
        (lambda: losses.CoSENTLoss(similarity_fct="cos"), "similarity_fct='cos'; expected a function"),
        (
            lambda: losses.TripletLoss(distance_metric="cos"),
            "expected a function, such as TripletDistanceMetric.COSINE",
        ),
        (lambda: losses.TripletLoss(triplet_margin=float("nan")), "triplet_margin=nan; expected a finite number"),
        (lambda: losses.EmbedDistillLoss(distance_metric="dot"), "'dot'; expected one of mse, l2, cosine"),
        (
            lambda: losses.EmbedDistillLoss(MODEL, projection_dim=0),
            "projection_dim=0; expected a whole number of at least 1",
        ),
        (lambda: losses.DistillKLDivLoss(temperature=-1), "temperature=-1; expected a positive number"),
        (lambda: losses.DistillKLDivLoss(student_temperature=0), "student_temperature=0; expected a positive"),
        (lambda: losses.SoftmaxLoss(None, 4, 0), "num_labels=0; expected a whole number of at least 1"),
        (
            lambda: losses.SoftmaxLoss(None, 4, 2, concatenation_sent_rep=False, concatenation_sent_difference=False),
            "no concatenation",
        ),
        (lambda: losses.CachedMultipleNegativesRankingLoss(mini_batch_size=0), "mini_batch_size=0; expected a whole"),
        (
            lambda: losses.CachedMultipleNegativesSymmetricRankingLoss(mini_batch_num_tokens=-1),
            "mini_batch_num_tokens=-1; expected a whole number of at least 1",
        ),
        (lambda: losses.CachedGISTEmbedLoss(None, MODEL, mini_batch_size=1.5), "mini_batch_size=1.5; expected a whole"),
        (
            lambda: losses.MegaBatchMarginLoss(mini_batch_size=0),
            "mini_batch_size=0; expected a whole number of at least 1",
        ),
        (
            lambda: losses.GlobalOrthogonalRegularizationLoss(mean_weight=0, second_moment_weight=None),
            "no weight for either term",
        ),
        (lambda: losses.MatryoshkaLoss(None, None, [4]), "NoneType as loss; expected a loss"),
        (lambda: losses.MatryoshkaLoss(None, losses.CoSENTLoss(), []), "no matryoshka_dims"),
        (lambda: losses.MatryoshkaLoss(None, losses.CoSENTLoss(), [0]), "matryoshka_dims=0; expected a whole number"),
        (lambda: losses.MatryoshkaLoss(None, losses.CoSENTLoss(), [4], [1, 2]), "2 matryoshka_weights for 1 sizes"),
        (lambda: losses.MatryoshkaLoss(MODEL, losses.CoSENTLoss(), [DIM + 1]), f"at most {DIM}, the embeddings' size"),
        (lambda: losses.MatryoshkaLoss(None, losses.CoSENTLoss(), [4], n_dims_per_step=0), "n_dims_per_step=0"),
        (lambda: losses.MultipleNegativesRankingLoss(directions=()), "directions=()"),
        (lambda: losses.MultipleNegativesRankingLoss(directions=("doc_to_doc",)), "expected query_to_doc among them"),
        (
            lambda: losses.MultipleNegativesRankingLoss(
                directions=("query_to_doc", "doc_to_doc"), partition_mode="per_direction"
            ),
            "per_direction' with doc_to_doc",
        ),
        (lambda: losses.MultipleNegativesRankingLoss(hardness_mode="all"), "hardness_mode='all'; expected one of"),
        (
            lambda: losses.MultipleNegativesRankingLoss(hardness_mode="all_negatives", hardness_strength=-1),
            "hardness_strength=-1; expected 0 or more",
        ),
        (lambda: losses.MultipleNegativesSymmetricRankingLoss(gather_across_devices=1), "expected True or False"),
    ],
)
def test_options_that_do_not_fit(make: Callable[[], Loss], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert message in str(caught.value)


def test_options_without_effect_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="hardness_strength=0, which has no effect"):
        losses.MultipleNegativesRankingLoss(hardness_mode="all_negatives")
    with pytest.warns(UserWarning, match=f"leave out {DIM}"):
        losses.MatryoshkaLoss(MODEL, losses.CoSENTLoss(), [4])


def test_functions_of_ones_own_have_their_name_in_the_card() -> None:
    def mine(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().sum(dim=1)

    assert losses.TripletLoss(distance_metric=mine).get_config_dict()["distance_metric"] == "mine"
    assert losses.CoSENTLoss(similarity_fct=mine).get_config_dict()["similarity_fct"] == "mine"
    near = columns(3, 4)
    assert losses.TripletLoss(distance_metric=mine, triplet_margin=0)([near[0], near[0], near[1]]).item() == 0


def test_losses_with_layers_have_parameters() -> None:
    assert len(list(losses.SoftmaxLoss(None, DIM, 3).parameters())) == 2
    assert len(list(losses.MSELoss(MODEL, projection_dim=3).parameters())) == 2
    assert not list(losses.MSELoss(MODEL).parameters())


def test_terms_of_regularization() -> None:
    loss = losses.GlobalOrthogonalRegularizationLoss()
    parts = columns(2, 5)
    terms = loss(parts)
    assert list(terms) == ["gor_mean", "gor_second_moment"]
    over = losses.MatryoshkaLoss(None, losses.GlobalOrthogonalRegularizationLoss(), [parts[0].shape[1]])
    assert over(parts).item() == pytest.approx(sum(term.item() for term in terms.values()), rel=1e-5)
    assert list(losses.GlobalOrthogonalRegularizationLoss(mean_weight=0)(parts)) == ["gor_second_moment"]


def test_matryoshka_needs_what_its_loss_needs() -> None:
    loss = losses.MatryoshkaLoss(None, losses.BatchHardTripletLoss(), [4, 2])
    assert (loss.needs_labels, loss.label_kind) == (True, "class")
    with pytest.raises(InputError, match="2 text column"):
        loss.check_rows(("a", "b"), [0.0])
    with pytest.raises(InputError, match="got embeddings of 3 dimensions"):
        loss([torch.ones(2, 3)], torch.tensor([0, 1]))


def test_the_distance_of_equal_texts_has_no_gradient() -> None:
    rows = torch.ones(3, 4, requires_grad=True)
    losses.BatchHardTripletLossDistanceFunction.euclidean_distance(rows).sum().backward()
    assert rows.grad is not None
    assert not rows.grad.any()
    squared = losses.BatchHardTripletLossDistanceFunction.euclidean_distance(torch.eye(2) * 2, squared=True)
    assert squared.tolist() == [[0, 8], [8, 0]]


# ---- rows -----------------------------------------------------------------------------------------------------------

NUMBERS = np.zeros((2, 3), dtype=np.float32)
PAIR, TRIPLE = ("a", "b"), ("a", "b", "c")
ROWS: list[tuple[Loss, tuple[str, ...], Any, list[str]]] = [
    (losses.CoSENTLoss(), TRIPLE, [1.0], ["3 text column(s)", "CoSENTLoss expects 2 and a label"]),
    (losses.CoSENTLoss(), PAIR, NUMBERS, ["labels of 3 numbers each", "expects a number for each row"]),
    (losses.AnglELoss(), PAIR, None, ["no labels", "AnglELoss expects a number"]),
    (losses.TripletLoss(), PAIR, None, ["2 text column(s)", "TripletLoss expects 3"]),
    (losses.ContrastiveLoss(), PAIR, [0.0, 2.0], ["labels from 0 to 2", "0 to 1", "--scale=0-2"]),
    (losses.MegaBatchMarginLoss(), TRIPLE, None, ["MegaBatchMarginLoss expects 2"]),
    (losses.BatchHardTripletLoss(), PAIR, [0.0], ["expects 1 and a label, a class", "such as text"]),
    (losses.BatchHardTripletLoss(), ("a",), None, ["no labels", "a class, which is a whole number or a name"]),
    (losses.BatchHardTripletLoss(), ("a",), [0.0, 0.5], ["row 1 has the label 0.5", "numbered from 0"]),
    (losses.BatchHardTripletLoss(), ("a",), [-1.0], ["row 0 has the label -1", "numbered from 0"]),
    (losses.BatchHardTripletLoss(), ("a",), [2.0**25], ["row 0 has the label", "numbered from 0"]),
    (losses.SoftmaxLoss(None, DIM, 2), PAIR, [0.0, 2.0], ["classes up to 2", "expects 0 to 1", "num_labels=3"]),
    (losses.MSELoss(), ("a",), [1.0, 2.0], ["labels of one number", "a teacher's embedding", "column label"]),
    (losses.MSELoss(), ("a",), None, ["no labels", "MSELoss expects a number or a list of numbers"]),
    (losses.MSELoss(), PAIR, np.zeros((2, 3, 4)), ["3 embeddings in a label for 2 text", "one for each column"]),
    (
        losses.MarginMSELoss(),
        TRIPLE,
        np.zeros((2, 4)),
        ["labels of 4 number(s)", "expects 1, a margin", "or 2, a score"],
    ),
    (losses.MarginMSELoss(), (*TRIPLE, "d"), [1.0], ["labels of 1 number(s)", "expects 2, a margin", "or 3, a score"]),
    (losses.DistillKLDivLoss(), TRIPLE, NUMBERS, ["labels of 3 number(s)", "expects 2, a score for each text but"]),
]


@pytest.mark.parametrize(("loss", "texts", "labels", "parts"), ROWS)
def test_rows_that_do_not_fit(loss: Loss, texts: tuple[str, ...], labels: Any, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        loss.check_rows(texts, labels)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("loss", "texts", "labels"),
    [
        (losses.AnglELoss(), TRIPLE, None),
        (losses.AnglELoss(), TRIPLE, [1.0, 0.0]),
        (losses.MultipleNegativesRankingLoss(), PAIR, NUMBERS),
        (losses.BatchAllTripletLoss(), ("a",), [0.0, 7.0]),
        (losses.MSELoss(), PAIR, NUMBERS),
        (losses.MSELoss(), PAIR, np.zeros((2, 2, 3))),
        (losses.MarginMSELoss(), TRIPLE, [1.0, 2.0]),
        (losses.MarginMSELoss(), (*TRIPLE, "d"), NUMBERS),
        (losses.DistillKLDivLoss(), (*TRIPLE, "d"), NUMBERS),
        (losses.GlobalOrthogonalRegularizationLoss(), ("a",), None),
    ],
)
def test_rows_that_fit(loss: Loss, texts: tuple[str, ...], labels: Any) -> None:
    loss.check_rows(texts, labels)


BATCHES: list[tuple[Loss, int, Tensor | None, list[str]]] = [
    (losses.CoSENTLoss(), 3, torch.ones(4), ["3 text column(s)", "CoSENTLoss expects 2"]),
    (losses.CoSENTLoss(), 2, torch.ones(3), ["3 labels for 4 rows"]),
    (losses.AnglELoss(), 2, None, ["no labels", "or negatives"]),
    (losses.ContrastiveLoss(), 2, None, ["no labels"]),
    (losses.TripletLoss(), 2, None, ["TripletLoss expects 3"]),
    (losses.BatchAllTripletLoss(), 1, None, ["no classes"]),
    (losses.BatchAllTripletLoss(), 1, torch.ones(3), ["3 classes for 4 rows"]),
    (losses.SoftmaxLoss(None, 16, 2), 2, torch.ones(5), ["5 classes for 4 rows"]),
    (losses.MSELoss(), 1, None, ["no labels", "a teacher's embedding for each of the 4 rows"]),
    (losses.MSELoss(), 1, torch.ones(4, 3), ["labels of shape (4, 3)", "(4, 16)", "pass projection_dim"]),
    (losses.MSELoss(), 2, torch.ones(2, 4, 16), ["labels of shape (2, 4, 16)", "(4, 2, 16)"]),
    (losses.MarginMSELoss(), 3, torch.ones(4, 3), ["labels of shape (4, 3)", "(4, 1), the margins, or (4, 2)"]),
    (losses.MarginMSELoss(), 3, torch.ones(3), ["labels of shape (3,)", "(4, 1)"]),
    (losses.MarginMSELoss(), 3, None, ["no labels"]),
    (losses.DistillKLDivLoss(), 3, torch.ones(4), ["labels of shape (4,)", "(4, 2), a score for each candidate"]),
    (losses.DistillKLDivLoss(), 3, None, ["no labels"]),
]


@pytest.mark.parametrize(("loss", "count", "labels", "parts"), BATCHES)
def test_batches_that_do_not_fit(loss: Loss, count: int, labels: Tensor | None, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        loss(columns(count, 4), labels)
    for part in parts:
        assert part in str(caught.value)


# ---- a guide --------------------------------------------------------------------------------------------------------


def test_the_copy_is_a_guide() -> None:
    """The copy has weights of its own, which are parameters of the loss; its embeddings are the third argument."""
    model = nn.Linear(3, 3)
    loss = losses.ContrastiveTensionLossInBatchNegatives(model)
    assert loss.guide is loss.copied
    assert loss.guide is not model
    assert len(list(loss.parameters())) == 3
    assert loss.trains_guide
    texts = columns(1, 4)
    assert loss(texts, None, texts).item() < 1e-3
    with pytest.raises(InputError, match=r"for \[\] rows; .* expects \[4\]: pass them as third argument"):
        loss(texts)
    with pytest.raises(ConfigError, match="got the model NoneType; .* copies it"):
        losses.ContrastiveTensionLossInBatchNegatives(None)


def test_the_guide_of_a_loss_in_another() -> None:
    inner = losses.ContrastiveTensionLossInBatchNegatives(nn.Linear(3, 3))
    loss = losses.MatryoshkaLoss(None, inner, [4, 2])
    assert (loss.guide, loss.trains_guide) == (inner.guide, True)
    assert loss(columns(1, 4), None, columns(1, 4, seed=1)).isfinite()
    assert losses.MatryoshkaLoss(None, losses.CoSENTLoss(), [4]).guide is None


def test_a_trained_scale_is_read_from_a_card() -> None:
    loss = losses.ContrastiveTensionLossInBatchNegatives(nn.Linear(3, 3))
    with torch.no_grad():
        loss.logit_scale.mul_(0.987654321)
    config = json.loads(json.dumps(loss.get_config_dict()))
    again = loss_by_name("ContrastiveTensionLossInBatchNegatives", config, model=nn.Linear(3, 3))
    assert again.get_config_dict()["scale"] == pytest.approx(config["scale"], rel=1e-6)


def test_a_guide_is_not_part_of_the_loss() -> None:
    guide = nn.Linear(3, 3)
    loss = losses.GISTEmbedLoss(None, guide)
    assert loss.guide is guide
    assert not list(loss.parameters())
    assert not loss.trains_guide
    with pytest.raises(InputError, match=r"of the guide for \[4\] rows; GISTEmbedLoss expects \[4, 4\]"):
        loss(columns(2, 4), None, columns(1, 4))
    with pytest.raises(ConfigError, match="got the guide str; expected a model"):
        losses.GISTEmbedLoss(None, "all-MiniLM-L6-v2")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="margin_strategy='mine'"):
        losses.GISTEmbedLoss(None, guide, margin_strategy="mine")  # type: ignore[arg-type]


def test_a_matryoshka_loss_leaves_a_guide_whole() -> None:
    inner = losses.GISTEmbedLoss(None, nn.Linear(3, 3), temperature=0.1)
    parts, guided = columns(2, 5), columns(2, 5, dim=7, seed=1)
    value = losses.MatryoshkaLoss(None, inner, [8, 4])(parts, None, guided)
    expected = sum(inner([part[:, :size] for part in parts], None, guided).item() for size in (8, 4))
    assert value.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.MatryoshkaLoss(None, losses.CoSENTLoss(), 8), "matryoshka_dims=8; expected a list"),  # type: ignore[arg-type]
        (lambda: losses.MatryoshkaLoss(None, losses.CoSENTLoss(), [8], 1.0), "matryoshka_weights=1.0; expected a list"),  # type: ignore[arg-type]
        (
            lambda: losses.AdaptiveLayerLoss(None, losses.CoSENTLoss(), n_layers_per_step=0),
            "expected a whole number of at least 1",
        ),
        (lambda: losses.AdaptiveLayerLoss(None, losses.CoSENTLoss(), n_layers_per_step=None), "-1 for all layers"),  # type: ignore[arg-type]
        (lambda: losses.AdaptiveLayerLoss(None, losses.CoSENTLoss(), kl_temperature=-1), "expected a number from 0"),
        (
            lambda: losses.AdaptiveLayerLoss(None, losses.CoSENTLoss(), layer_weighting="x"),
            "expected uniform, log, linear",
        ),  # type: ignore[arg-type]
    ],
)
def test_options_of_losses_over_losses(make: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
