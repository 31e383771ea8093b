"""Every loss as code for the reference calls it: positional arguments, functions of its kind, old names of options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from common import WORDS
from torch import Tensor, nn

ROWS = 7


@dataclass(frozen=True)
class Call:
    """A loss, and what stands behind the model in its call.

    Attributes:
        loss: class name.
        columns: number of text columns.
        labels: how labels are drawn, by name; None for none.
        options: makes the further arguments of what a library has: `losses`, `util`, `model`, `guide` and `dim`.
        name: of the case.
    """

    loss: str
    columns: int = 2
    labels: str | None = None
    options: Callable[[Any], tuple[Any, ...] | dict[str, Any]] = lambda library: ()
    name: str = ""

    def __str__(self) -> str:
        return f"{self.loss}-{self.name}" if self.name else self.loss

    def made(self, library: SimpleNamespace) -> Any:
        """Make the loss."""
        options = self.options(library)
        kind = getattr(library.losses, self.loss)
        return kind(library.model, **options) if isinstance(options, dict) else kind(library.model, *options)


def _dense(library: Any) -> Any:
    return library.losses.BatchHardTripletLossDistanceFunction.cosine_distance


ALL = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
CALLS = (
    Call("CosineSimilarityLoss", 2, "score"),
    Call("CosineSimilarityLoss", 2, "score", lambda it: (nn.L1Loss(), nn.Sigmoid()), "functions"),
    Call("CosineSimilarityLoss", 2, "stars", name="labels that are out of range"),
    Call("CosineSimilarityLoss", 3, "score", name="three columns"),
    Call("CoSENTLoss", 2, "score"),
    Call("CoSENTLoss", 3, "score", lambda it: (10.0, it.util.pairwise_dot_score), "three columns"),
    Call("AnglELoss", 2, "score", lambda it: (10.0,)),
    Call("AnglELoss", 4),
    Call("ContrastiveLoss", 2, "binary", lambda it: (it.losses.SiameseDistanceMetric.EUCLIDEAN, 1.5, False)),
    Call("ContrastiveLoss", 2, "score", name="labels between"),
    Call("OnlineContrastiveLoss", 2, "binary", lambda it: (it.losses.SiameseDistanceMetric.MANHATTAN, 2.0)),
    Call("OnlineContrastiveLoss", 3, "score", name="labels between"),
    Call("SoftmaxLoss", 2, "class", lambda it: (it.dim, 3, True, True, True)),
    Call("SoftmaxLoss", 2, "class", lambda it: {"sentence_embedding_dimension": it.dim, "num_labels": 3}, "old name"),
    Call("SoftmaxLoss", 2, "score", lambda it: (it.dim, 1, True, True, False, _squares), "another function"),
    Call("GlobalOrthogonalRegularizationLoss", 3, None, lambda it: (it.util.dot_score, 2.0, 0.5, "sum")),
    Call("TripletLoss", 3, None, lambda it: (it.losses.TripletDistanceMetric.COSINE, 0.5)),
    Call("TripletLoss", 3, None, lambda it: (lambda a, b: (a - b).abs().amax(dim=1), 1.0), "a function"),
    Call("BatchAllTripletLoss", 1, "class", lambda it: (_dense(it), 0.3)),
    Call("BatchAllTripletLoss", 2, "odd", name="two columns and any labels"),
    Call("BatchHardTripletLoss", 1, "class", lambda it: (_dense(it), 0.3)),
    Call("BatchHardSoftMarginTripletLoss", 1, "class", lambda it: (_dense(it),)),
    Call("BatchSemiHardTripletLoss", 1, "class", lambda it: (_dense(it), 0.3)),
    Call("MultipleNegativesRankingLoss", 2, None, lambda it: (20.0,)),
    Call("MultipleNegativesRankingLoss", 4, None, lambda it: (5.0, it.util.dot_score, False, ALL, "joint"), "all"),
    Call(
        "MultipleNegativesRankingLoss",
        3,
        "score",
        lambda it: {"hardness_mode": "all_negatives", "hardness_strength": 9.0},
        "hard",
    ),
    Call("MultipleNegativesSymmetricRankingLoss", 3, None, lambda it: (10.0, it.util.cos_sim)),
    Call("CachedMultipleNegativesRankingLoss", 3, None, lambda it: (20.0, it.util.cos_sim, 3)),
    Call("CachedMultipleNegativesRankingLoss", 2, None, lambda it: {"mini_batch_num_tokens": 20}, "tokens"),
    Call("CachedMultipleNegativesSymmetricRankingLoss", 2, None, lambda it: (20.0, it.util.cos_sim, 4)),
    Call("MegaBatchMarginLoss", 2, None, lambda it: (0.9, 0.1, True, 3)),
    Call("MegaBatchMarginLoss", 2, None, lambda it: (0.9, 0.1, False), "at once"),
    Call("MSELoss", 2, "teacher"),
    Call("MSELoss", 2, "projected", lambda it: (6,), "projected"),
    Call("EmbedDistillLoss", 2, "teachers", lambda it: ("l2",)),
    Call("EmbedDistillLoss", 2, "projected", lambda it: ("cosine", 6), "projected"),
    Call("MarginMSELoss", 3, "score", lambda it: (it.util.pairwise_cos_sim,)),
    Call("MarginMSELoss", 4, "candidates"),
    Call("DistillKLDivLoss", 4, "candidates", lambda it: (it.util.pairwise_dot_score, 2.0)),
    Call("GISTEmbedLoss", 3, None, lambda it: (it.guide, 0.1, "relative", 0.1)),
    Call("GISTEmbedLoss", 2, None, lambda it: (it.other_guide, 0.1), "other tokens"),
    Call("CachedGISTEmbedLoss", 4, None, lambda it: (it.guide, 0.1, 3)),
    Call("ContrastiveTensionLoss", 2, "binary"),
    Call("ContrastiveTensionLoss", 2, name="equal texts"),
    Call("ContrastiveTensionLossInBatchNegatives", 1, None, lambda it: (10.0, it.util.cos_sim)),
    Call("ContrastiveTensionLossInBatchNegatives", 2, name="two columns"),
    Call("DenoisingAutoEncoderLoss", 2),
    Call("DenoisingAutoEncoderLoss", 2, None, lambda it: (it.decoder, False), "another decoder"),
    Call(
        "MatryoshkaLoss", 3, None, lambda it: (it.losses.MultipleNegativesRankingLoss(it.model), [it.dim, 8], [1, 0.5])
    ),
    Call(
        "MatryoshkaLoss", 2, "score", lambda it: (it.losses.CoSENTLoss(it.model), [it.dim, 16, 8], None, 2), "sampled"
    ),
    Call("MatryoshkaLoss", 2, "teacher", lambda it: (it.losses.MSELoss(it.model), [it.dim, 8]), "embeddings as labels"),
    Call(
        "MatryoshkaLoss",
        2,
        None,
        lambda it: (it.losses.CachedMultipleNegativesRankingLoss(it.model, mini_batch_size=3), [it.dim, 8]),
        "cached",
    ),
    Call(
        "MatryoshkaLoss", 2, None, lambda it: (it.losses.GISTEmbedLoss(it.model, it.guide, 0.1), [it.dim, 8]), "guided"
    ),
    Call(
        "AdaptiveLayerLoss",
        2,
        "score",
        lambda it: (it.losses.CosineSimilarityLoss(it.model), -1, 2.0, 0.5, 3.0, 1.0, "log"),
    ),
    Call("AdaptiveLayerLoss", 2, None, lambda it: (it.losses.MultipleNegativesRankingLoss(it.model), 1), "sampled"),
    Call("Matryoshka2dLoss", 2, "score", lambda it: (it.losses.CoSENTLoss(it.model), [it.dim, 8], [1, 0.5], 1, 2)),
)


def _squares(scores: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.mse_loss(scores.view(-1), labels)


def texts_of(call: Call) -> list[list[str]]:
    """Draw the texts of each column; some are in both of the first columns."""
    draw = np.random.default_rng(call.columns)
    columns = [[" ".join(draw.choice(WORDS, draw.integers(1, 14))) for _ in range(ROWS)] for _ in range(call.columns)]
    if call.loss == "ContrastiveTensionLoss":
        columns[1][1:4] = columns[0][1:4]
    return columns


def labels_of(call: Call, dim: int) -> Tensor | None:
    """Draw labels."""
    draw = np.random.default_rng(3)
    columns = call.columns
    drawn: dict[str, Callable[[], Any]] = {
        "score": lambda: draw.choice([0.0, 0.2, 0.5, 1.0], ROWS),
        "stars": lambda: draw.choice([0.0, 3.0, 5.0], ROWS),
        "binary": lambda: draw.integers(0, 2, ROWS),
        "class": lambda: draw.integers(0, 3, ROWS),
        "odd": lambda: draw.choice([-1.0, 0.5], ROWS),
        "teacher": lambda: draw.normal(size=(ROWS, dim)),
        "teachers": lambda: draw.normal(size=(ROWS, columns, dim)),
        "projected": lambda: draw.normal(size=(ROWS, 6)),
        "candidates": lambda: draw.normal(size=(ROWS, columns - 1)),
    }
    if call.labels is None:
        return None
    labels = torch.from_numpy(np.asarray(drawn[call.labels]()))
    return labels.float() if labels.is_floating_point() else labels


def total(result: Any) -> Tensor:
    """Return a loss as one number; some return their terms by name."""
    return sum(result.values()) if isinstance(result, dict) else result
