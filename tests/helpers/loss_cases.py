"""Every loss over embeddings with the options and batches that its tests use."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

DIM = 16
ROWS = (1, 2, 7, 33)
LAYERS = 3  # of the embeddings that a loss over layers gets


@dataclass(frozen=True)
class Case:
    """A loss with options.

    Attributes:
        loss: class name.
        options: of its constructor beside the model; functions and distances by name, an inner loss by class name.
        columns: numbers of text columns to test.
        labels: how labels are drawn: see `LABELS`.
    """

    loss: str
    options: dict[str, Any] = field(default_factory=dict)
    columns: tuple[int, ...] = (2,)
    labels: str | None = None

    def __str__(self) -> str:
        return "-".join([self.loss, *(f"{name}={value}" for name, value in self.options.items())])


def _scores(draw: np.random.Generator, rows: int, columns: int) -> Any:
    return draw.choice([0.0, 0.2, 0.25, 0.5, 1.0, -0.3], rows)  # with ties


LABELS: dict[str, Callable[[np.random.Generator, int, int], Any]] = {
    "score": _scores,
    "binary": lambda draw, rows, columns: draw.integers(0, 2, rows).astype(float),
    "zeros": lambda draw, rows, columns: np.zeros(rows),
    "ones": lambda draw, rows, columns: np.ones(rows),
    "class": lambda draw, rows, columns: draw.integers(0, 3, rows),
    "one class": lambda draw, rows, columns: np.ones(rows, dtype=np.int64),
    "teacher": lambda draw, rows, columns: draw.normal(size=(rows, DIM)),
    "teachers": lambda draw, rows, columns: draw.normal(size=(rows, columns, DIM)),
    "projected": lambda draw, rows, columns: draw.normal(size=(rows, 6)),
    "margin": lambda draw, rows, columns: draw.normal(size=(rows, columns - 2)),
    "candidates": lambda draw, rows, columns: draw.normal(size=(rows, columns - 1)) * 3,
}

_DIRECTIONS = (
    ("query_to_doc", "doc_to_query"),
    ("query_to_doc", "query_to_query"),
    ("query_to_doc", "doc_to_doc"),
    ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"),
)
_HARDNESS = ("in_batch_negatives", "hard_negatives", "all_negatives")
_IN_BATCH = "BatchHardTripletLossDistanceFunction"
_BATCH_LOSSES = ("BatchAllTripletLoss", "BatchHardTripletLoss", "BatchSemiHardTripletLoss")


def _order_and_ranking() -> Iterator[Case]:
    yield Case("CosineSimilarityLoss", labels="score")
    for labels in ("score", "binary", "ones"):
        yield Case("CoSENTLoss", labels=labels)
        yield Case("AnglELoss", labels=labels)
    yield Case("CoSENTLoss", {"scale": 3, "similarity_fct": "pairwise_dot_score"}, labels="score")
    yield Case("AnglELoss", {"scale": 2.0}, (3, 4), labels="score")
    yield Case("AnglELoss", {}, (3, 5))
    ranking = "MultipleNegativesRankingLoss"
    yield Case(ranking, {}, (2, 3, 4))
    yield Case(ranking, {"scale": 2.0, "similarity_fct": "dot_score"}, (2, 3))
    for directions in _DIRECTIONS:
        yield Case(ranking, {"directions": directions}, (2, 4))
    yield Case(ranking, {"directions": _DIRECTIONS[0], "partition_mode": "per_direction"}, (2, 4))
    for mode in _HARDNESS:
        strong = {"hardness_mode": mode, "hardness_strength": 9.0}
        yield Case(ranking, strong, (2, 4))
        yield Case(
            ranking, {**strong, "directions": _DIRECTIONS[-1], "similarity_fct": "dot_score", "scale": 1}, (2, 4)
        )
        yield Case(ranking, {**strong, "directions": _DIRECTIONS[0], "partition_mode": "per_direction"}, (3,))
    yield Case("MultipleNegativesSymmetricRankingLoss", {}, (2, 3))
    yield Case("MultipleNegativesSymmetricRankingLoss", {"scale": 1.5, "similarity_fct": "dot_score"}, (2, 3))


def _distances() -> Iterator[Case]:
    for distance in ("COSINE", "EUCLIDEAN", "MANHATTAN"):
        metric = {"distance_metric": f"TripletDistanceMetric.{distance}"}
        yield Case("TripletLoss", {**metric, "triplet_margin": 0.5 if distance == "COSINE" else 1}, (3,))
    yield Case("TripletLoss", {}, (3,))
    for distance in ("COSINE_DISTANCE", "EUCLIDEAN", "MANHATTAN"):
        metric = {"distance_metric": f"SiameseDistanceMetric.{distance}"}
        for labels in ("binary", "ones", "zeros"):
            yield Case("ContrastiveLoss", {**metric, "margin": 2.0}, labels=labels)
            yield Case("OnlineContrastiveLoss", {**metric, "margin": 2.0}, labels=labels)
    yield Case("ContrastiveLoss", {"size_average": False}, labels="binary")
    yield Case("OnlineContrastiveLoss", labels="binary")
    for labels in ("class", "one class"):
        for loss in _BATCH_LOSSES:
            yield Case(loss, {}, (1,), labels)
            yield Case(loss, {"distance_metric": f"{_IN_BATCH}.cosine_distance", "margin": 0.3}, (1,), labels)
            yield Case(loss, {"margin": 0}, (1,), labels)
        yield Case("BatchHardSoftMarginTripletLoss", {}, (1,), labels)
        yield Case("BatchHardSoftMarginTripletLoss", {"distance_metric": f"{_IN_BATCH}.cosine_distance"}, (1,), labels)
    for small in (True, False):
        yield Case("MegaBatchMarginLoss", {"use_mini_batched_version": small, "mini_batch_size": 5})
    yield Case("MegaBatchMarginLoss", {"use_mini_batched_version": False, "positive_margin": 1, "negative_margin": -1})


def _teachers_and_others() -> Iterator[Case]:
    for labels in ("teacher", "teachers"):
        yield Case("MSELoss", {}, (1, 2) if labels == "teacher" else (2, 3), labels)
        for distance in ("mse", "l2", "cosine"):
            columns = (1, 2) if labels == "teacher" else (2, 3)
            yield Case("EmbedDistillLoss", {"distance_metric": distance}, columns, labels)
    yield Case("MSELoss", {"projection_dim": 6}, (1, 2), "projected")
    yield Case("EmbedDistillLoss", {"projection_dim": 6}, (1, 2), "projected")
    for labels in ("margin", "candidates"):
        yield Case("MarginMSELoss", {}, (3, 5), labels)
    yield Case("MarginMSELoss", {"similarity_fct": "pairwise_cos_sim"}, (3,), "score")
    yield Case("DistillKLDivLoss", {}, (3, 5), "candidates")
    yield Case("DistillKLDivLoss", {"temperature": 2.0, "similarity_fct": "pairwise_cos_sim"}, (4,), "candidates")
    yield Case("DistillKLDivLoss", {"student_temperature": 0.5, "teacher_temperature": 3.0}, (3,), "candidates")
    classes = {"embedding_dimension": DIM, "num_labels": 3}
    yield Case("SoftmaxLoss", classes, labels="class")
    yield Case("SoftmaxLoss", {**classes, "concatenation_sent_multiplication": True}, labels="class")
    yield Case("SoftmaxLoss", {**classes, "concatenation_sent_rep": False}, labels="class")
    yield Case("GlobalOrthogonalRegularizationLoss", {}, (1, 2, 3))
    yield Case("GlobalOrthogonalRegularizationLoss", {"aggregation": "sum", "mean_weight": 3.0}, (2,))
    yield Case("GlobalOrthogonalRegularizationLoss", {"mean_weight": None, "similarity_fct": "dot_score"}, (2,))
    yield Case("ContrastiveTensionLossInBatchNegatives", {}, (1,))
    yield Case("ContrastiveTensionLossInBatchNegatives", {"scale": 3, "similarity_fct": "dot_score"}, (1,))
    for labels in ("binary", "zeros"):
        yield Case("ContrastiveTensionLoss", {}, (2,), labels)
    yield Case("GISTEmbedLoss", {}, (2, 3))
    yield Case("GISTEmbedLoss", {"temperature": 0.1, "margin": 0.1}, (2, 3))
    relative = {"margin_strategy": "relative", "margin": 0.3}
    yield Case("GISTEmbedLoss", {"temperature": 0.2, **relative, "contrast_anchors": False}, (2, 3))
    yield Case("GISTEmbedLoss", {"temperature": 0.1, "margin": -0.2, "contrast_positives": False}, (2, 3))
    matryoshka = {"matryoshka_dims": (4, DIM, 8), "matryoshka_weights": (1, 2, 0.5)}
    yield Case("MatryoshkaLoss", {"loss": "MultipleNegativesRankingLoss", "matryoshka_dims": [DIM, 5]}, (2, 3))
    yield Case("MatryoshkaLoss", {"loss": "CoSENTLoss", **matryoshka}, (2,), "score")
    yield Case("MatryoshkaLoss", {"loss": "TripletLoss", **matryoshka}, (3,))
    for labels in ("teacher", "teachers"):  # which are cut too
        yield Case("MatryoshkaLoss", {"loss": "EmbedDistillLoss", **matryoshka}, (2,), labels)
    yield Case("MatryoshkaLoss", {"loss": "CoSENTLoss", **matryoshka, "n_dims_per_step": 2}, (2,), "score")


def _cached() -> Iterator[Case]:
    ranking = "CachedMultipleNegativesRankingLoss"
    yield Case(ranking, {}, (2, 3, 4))
    yield Case(ranking, {"mini_batch_size": 1, "similarity_fct": "dot_score", "scale": 2.0}, (2, 3))
    for directions in _DIRECTIONS:
        yield Case(ranking, {"directions": directions, "mini_batch_size": 5}, (2, 4))
    for mode in _HARDNESS:
        strong = {"hardness_mode": mode, "hardness_strength": 9.0, "mini_batch_size": 4}
        yield Case(ranking, strong, (2, 4))
        yield Case(ranking, {**strong, "directions": _DIRECTIONS[0], "partition_mode": "per_direction"}, (3,))
    yield Case("CachedMultipleNegativesSymmetricRankingLoss", {}, (2, 3))
    yield Case("CachedMultipleNegativesSymmetricRankingLoss", {"mini_batch_size": 3, "scale": 1.5}, (2, 3))
    yield Case("CachedGISTEmbedLoss", {}, (2, 3))
    yield Case("CachedGISTEmbedLoss", {"temperature": 0.1, "margin": 0.1, "mini_batch_size": 1}, (2, 3))
    relative = {"margin_strategy": "relative", "margin": 0.3, "mini_batch_size": 7}
    yield Case("CachedGISTEmbedLoss", {"temperature": 0.2, **relative, "contrast_anchors": False}, (2, 3))
    ones = {"temperature": 0.1, "margin": -0.2, "contrast_positives": False, "mini_batch_size": 4}
    yield Case("CachedGISTEmbedLoss", ones, (2, 3))


def _layers() -> Iterator[Case]:
    for weighting in ("uniform", "log", "linear"):
        plain = {"loss": "TripletLoss", "n_layers_per_step": -1, "kl_temperature": 0}
        yield Case("AdaptiveLayerLoss", {**plain, "layer_weighting": weighting}, (3,))
    yield Case("AdaptiveLayerLoss", {"loss": "MultipleNegativesRankingLoss"}, (2, 3))
    weights = {"last_layer_weight": 2.0, "prior_layers_weight": 0.5, "kl_div_weight": 3.0, "kl_temperature": 1.0}
    yield Case("AdaptiveLayerLoss", {"loss": "CoSENTLoss", "n_layers_per_step": 9, **weights}, (2,), "score")
    matryoshka = {"loss": "CoSENTLoss", "matryoshka_dims": (4, DIM, 8), "matryoshka_weights": (1, 2, 0.5)}
    yield Case("Matryoshka2dLoss", matryoshka, (2,), "score")
    yield Case("Matryoshka2dLoss", {**matryoshka, "n_dims_per_step": -1, "kl_temperature": 0}, (2,), "score")


LAYERED = ("AdaptiveLayerLoss", "Matryoshka2dLoss")
CASES = (*_layers(), *_order_and_ranking(), *_distances(), *_teachers_and_others(), *_cached())


class Bound:
    """A loss that is passed in one list all its embeddings: those of each layer, or of the model and then the guide.

    Of a loss that returns terms it is their sum.
    """

    def __init__(self, loss: Any) -> None:
        self.loss = loss

    def __call__(self, parts: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        value = self._value(parts, labels)
        return sum(value.values()) if isinstance(value, dict) else value

    def _value(self, parts: Sequence[Tensor], labels: Tensor | None) -> Any:
        if self.loss.layered:
            columns = len(parts) // LAYERS
            return self.loss([parts[first : first + columns] for first in range(0, len(parts), columns)], labels)
        if self.loss.guide is None or self.loss.forms:
            return self.loss(parts, labels)
        half = len(parts) // 2
        return self.loss(parts[:half], labels, parts[half:])


GUIDED = ("ContrastiveTensionLossInBatchNegatives", "GISTEmbedLoss", "CachedGISTEmbedLoss")


def batch(case: Case, rows: int, columns: int, *, kind: str = "random") -> tuple[list[Tensor], Tensor | None]:
    """Return the embeddings of a batch, (rows, DIM) float64 leaves, and its labels.

    Args:
        case: the loss.
        rows: of the batch.
        columns: number of text columns; a loss with a guide gets twice as many, and one over layers `LAYERS` times.
        kind: "random", or "duplicates" for texts that occur several times.
    """
    draw = np.random.default_rng(rows * 10 + columns)
    count = columns * (2 if case.loss in GUIDED else LAYERS if case.loss in LAYERED else 1)
    parts = [draw.normal(size=(rows, DIM)) * 0.4 for _ in range(count)]
    if kind == "duplicates":
        parts = [part[np.arange(rows) // 2] for part in parts]
        parts[-1][0] = parts[0][0]
    labels = None if case.labels is None else torch.from_numpy(np.asarray(LABELS[case.labels](draw, rows, columns)))
    return [torch.from_numpy(part) for part in parts], labels


def made(case: Case, library: Any, functions: Any, model: Any) -> Any:
    """Make the loss of a case.

    Args:
        case: the loss.
        library: a module with losses and their distances.
        functions: a module with similarity functions.
        model: the first argument.
    """
    options = dict(case.options)
    if "similarity_fct" in options:
        options["similarity_fct"] = getattr(functions, options["similarity_fct"])
    if "." in str(options.get("distance_metric")):
        family, name = options["distance_metric"].split(".")
        options["distance_metric"] = getattr(getattr(library, family), name)
    if case.loss.endswith("GISTEmbedLoss"):
        options["guide"] = copy.deepcopy(model)
    if "loss" in options:
        options["loss"] = getattr(library, options["loss"])(model)
    return getattr(library, case.loss)(model, **options)


def computed(loss: Callable[[Sequence[Tensor]], Tensor], parts: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return the value of a loss and its gradients by embeddings; those without influence have the gradient 0."""
    leaves = [part.detach().clone().requires_grad_() for part in parts]
    value = loss(leaves)
    if value.requires_grad:
        value.backward()
    return value.detach(), [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
