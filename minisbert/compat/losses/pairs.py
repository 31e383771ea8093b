"""Losses over the similarity or distance of two texts, and classification of pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ... import losses
from ...losses.base import LabelKind, Labels
from ...losses.distances import PairDistance, SiameseDistanceMetric
from ...similarity import SimilarityMatrix, cos_sim, pairwise_cos_sim
from ..old_names import old_names
from .features import FeatureLoss, Texts

_SQUARES, _AS_IT_IS, _CROSS_ENTROPY = nn.MSELoss(), nn.Identity(), nn.CrossEntropyLoss()


class CosineSimilarityLoss(FeatureLoss, losses.CosineSimilarityLoss):
    """`minisbert.losses.CosineSimilarityLoss` that holds the model.

    Args:
        model: embeds the texts.
        loss_fct: compares (batch,) scores with (batch,) labels.
        cos_score_transformation: applied to the cosines first.
    """

    columns_read = 2

    def __init__(
        self, model: Any, loss_fct: nn.Module = _SQUARES, cos_score_transformation: nn.Module = _AS_IT_IS
    ) -> None:
        super().__init__(
            model,
            loss_fct=None if loss_fct is _SQUARES else loss_fct,
            cos_score_transformation=None if cos_score_transformation is _AS_IT_IS else cos_score_transformation,
        )
        self.hold(model)


class CoSENTLoss(FeatureLoss, losses.CoSENTLoss):
    """`minisbert.losses.CoSENTLoss` that holds the model.

    Args:
        model: embeds the texts.
        scale: multiplies the similarities.
        similarity_fct: row by row, (n, d) and (n, d) to (n,).
    """

    columns_read: int | None = 2

    def __init__(self, model: Any, scale: float = 20.0, similarity_fct: SimilarityMatrix = pairwise_cos_sim) -> None:
        super().__init__(model, scale=scale, similarity_fct=similarity_fct)
        self.hold(model)


class AnglELoss(CoSENTLoss, losses.AnglELoss):
    """`minisbert.losses.AnglELoss` that holds the model.

    Args:
        model: embeds the texts.
        scale: multiplies the similarities.
    """

    columns_read = None

    def __init__(self, model: Any, scale: float = 20.0) -> None:
        losses.AnglELoss.__init__(self, model, scale=scale)
        self.hold(model)


class _LabelledPairs(FeatureLoss):
    """Base of the losses over pairs of label 0 or 1, which warns of others once."""

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Any:
        """Return the loss of two (batch, dim) tensors and (batch,) labels."""
        if labels is not None and not self._checked:
            self._checked = True
            if bool(((labels != 0) & (labels != 1)).any()):
                self.warn_once(f"got labels that are neither 0 nor 1; {type(self).__name__} {self.other_labels}")
        return super().compute_loss_from_embeddings(embeddings, labels)

    other_labels = "passes over the pairs with another label: round them"
    _checked = False


class ContrastiveLoss(_LabelledPairs, losses.ContrastiveLoss):
    """`minisbert.losses.ContrastiveLoss` that holds the model.

    Args:
        model: embeds the texts.
        distance_metric: one of `SiameseDistanceMetric`, or a function of (n, dim) and (n, dim) to (n,).
        margin: the distance from which texts that do not belong together count as apart.
        size_average: return the mean; the sum if False.
    """

    other_labels = "weights both its terms by them: round them"

    def __init__(
        self,
        model: Any,
        distance_metric: PairDistance = SiameseDistanceMetric.COSINE_DISTANCE,
        margin: float = 0.5,
        size_average: bool = True,
    ) -> None:
        super().__init__(model, distance_metric=distance_metric, margin=margin, size_average=size_average)
        self.hold(model)


class OnlineContrastiveLoss(_LabelledPairs, losses.OnlineContrastiveLoss):
    """`minisbert.losses.OnlineContrastiveLoss` that holds the model.

    Args:
        model: embeds the texts.
        distance_metric: one of `SiameseDistanceMetric`, or a function of (n, dim) and (n, dim) to (n,).
        margin: the distance from which texts that do not belong together count as apart.
    """

    columns_read = 2

    def __init__(
        self,
        model: Any,
        distance_metric: PairDistance = SiameseDistanceMetric.COSINE_DISTANCE,
        margin: float = 0.5,
    ) -> None:
        super().__init__(model, distance_metric=distance_metric, margin=margin)
        self.hold(model)


class SoftmaxLoss(FeatureLoss, losses.SoftmaxLoss):
    """`minisbert.losses.SoftmaxLoss` that holds the model.

    Without labels, it returns the embeddings and the scores of all classes. With a `loss_fct` of its own, labels are
    what that function takes.

    Args:
        model: embeds the texts.
        embedding_dimension: size of the embeddings; formerly `sentence_embedding_dimension`.
        num_labels: number of classes.
        concatenation_sent_rep: the classifier sees u and v.
        concatenation_sent_difference: it sees |u - v|.
        concatenation_sent_multiplication: it sees u * v.
        loss_fct: compares (batch, num_labels) scores with labels.
    """

    label_kind: LabelKind = "class"  # type: ignore[assignment]  # of any kind, for another function

    @old_names(sentence_embedding_dimension="embedding_dimension")
    def __init__(
        self,
        model: Any,
        embedding_dimension: int,
        num_labels: int,
        concatenation_sent_rep: bool = True,
        concatenation_sent_difference: bool = True,
        concatenation_sent_multiplication: bool = False,
        loss_fct: Callable[[Tensor, Tensor], Tensor] = _CROSS_ENTROPY,
    ) -> None:
        super().__init__(
            model,
            embedding_dimension,
            num_labels,
            concatenation_sent_rep=concatenation_sent_rep,
            concatenation_sent_difference=concatenation_sent_difference,
            concatenation_sent_multiplication=concatenation_sent_multiplication,
            loss_fct=None if loss_fct is _CROSS_ENTROPY else loss_fct,
        )
        self._classes = isinstance(loss_fct, nn.CrossEntropyLoss)
        self.label_kind = "class" if self._classes else "numbers"
        self.classifier.to(getattr(model, "device", None))
        self.hold(model)

    def of_features(self, columns: Sequence[Texts], labels: Tensor | None) -> Any:
        """Return the loss, or the embeddings and the scores of all classes where there are no labels."""
        embeddings = [self.embed(texts) for texts in columns]
        if labels is None:
            return embeddings, self.scores(embeddings)
        return self.compute_loss_from_embeddings(embeddings, labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Any:
        """Return the loss of two (batch, dim) tensors and the labels."""
        if self._classes or labels is None:
            return super().compute_loss_from_embeddings(embeddings, labels)
        scores = self.scores(embeddings)
        return self.loss_fct(
            scores, labels.view(-1) if self.num_labels == 1 or labels.shape != scores.shape else labels
        )

    def check_rows(self, texts: Sequence[str], labels: Labels | None) -> None:
        """Check that training rows fit: two texts, and a class below `num_labels` for cross entropy."""
        if self._classes:
            super().check_rows(texts, labels)
        else:
            losses.Loss.check_rows(self, texts, labels)


class GlobalOrthogonalRegularizationLoss(FeatureLoss, losses.GlobalOrthogonalRegularizationLoss):
    """`minisbert.losses.GlobalOrthogonalRegularizationLoss` that holds the model.

    Of tokens it returns the terms by name, gor_mean and gor_second_moment, and of embeddings their sum.

    Args:
        model: embeds the texts.
        similarity_fct: all pairs, (n, d) and (m, d) to (n, m).
        mean_weight: factor of the first term; None or 0 leaves it out.
        second_moment_weight: factor of the second term; None or 0 leaves it out.
        aggregation: "mean" or "sum" over the columns.
    """

    def __init__(
        self,
        model: Any,
        similarity_fct: SimilarityMatrix = cos_sim,
        mean_weight: float | None = 1.0,
        second_moment_weight: float | None = 1.0,
        aggregation: Any = "mean",
    ) -> None:
        super().__init__(
            model,
            similarity_fct=similarity_fct,
            mean_weight=mean_weight,
            second_moment_weight=second_moment_weight,
            aggregation=aggregation,
        )
        self.hold(model)

    def of_given(self, given: Any, labels: Tensor | None, guided: Sequence[Tensor]) -> Any:
        """Return the terms by name."""
        return self.compute_loss_from_embeddings(given)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> dict[str, Tensor]:
        """Return the terms of (batch, dim) tensors by name, each a scalar."""
        return losses.GlobalOrthogonalRegularizationLoss.forward(self, embeddings)

    def compute_gor(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Return both terms of a column, (batch, dim), without their weights."""
        return self._terms_of(embeddings)
