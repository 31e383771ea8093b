"""Losses that take a teacher's embeddings or scores as labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, check_count
from ..similarity import SimilarityMatrix, pairwise_dot_score
from .base import (
    LARGEST_SIZE,
    Labels,
    Loss,
    check_callable,
    check_choice,
    check_positive,
    dimension_of,
    function_name,
    sizes_of,
)

EmbeddingDistance: TypeAlias = Literal["mse", "l2", "cosine"]


class EmbedDistillLoss(Loss):
    """The distance of each embedding to the teacher's, the mean over batch and columns.

    Any number of text columns. The label of a row is the teacher's embedding for every column, (size,), or one for each
    column, (columns, size). Distances are "cosine" (1 - cosine), "l2" (euclidean) and "mse" (mean squared difference of
    the dimensions). (EmbedDistill: Kim et al. 2023, https://arxiv.org/abs/2301.12005.)

    Args:
        model: the model to train; not used without `projection_dim`.
        distance_metric: see above.
        projection_dim: size of the teacher's embeddings. A linear layer from the model's embeddings to this size is
            trained with the model, and is not saved with it.

    Attributes:
        projection: this layer, or None.

    Raises:
        ConfigError: the distance is unknown, or the layer has no model to take its size from.
    """

    min_columns = 1
    needs_labels = True
    label_kind = "numbers"

    def __init__(
        self,
        model: object = None,
        *,
        distance_metric: EmbeddingDistance = "cosine",
        projection_dim: int | None = None,
    ) -> None:
        super().__init__()
        check_choice(distance_metric, "distance_metric", get_args(EmbeddingDistance))
        self.distance_metric, self.projection_dim = distance_metric, projection_dim
        self.projection: nn.Linear | None = None
        if projection_dim is not None:
            size = check_count(projection_dim, "projection_dim", most=LARGEST_SIZE)
            self.projection = nn.Linear(dimension_of(model, type(self).__name__), size)

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the loss of (batch, dim) tensors and (batch, size) or (batch, columns, size) labels, a scalar."""
        columns = self.columns(embeddings)
        if self.projection is not None:
            columns = [self.projection(column) for column in columns]
        targets = self._targets(labels, columns)
        return torch.stack([self._distance(*pair) for pair in zip(columns, targets, strict=True)]).mean()

    def _targets(self, labels: Tensor | None, columns: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the teacher's embeddings of each column: (batch, size)."""
        rows, size = columns[0].shape
        name = type(self).__name__
        if labels is None:
            raise InputError(f"got no labels; {name} expects a teacher's embedding for each of the {rows} rows")
        if labels.shape not in ((rows, size), (rows, len(columns), size)):
            fix = "" if self.projection is not None or labels.shape[-1:] == (size,) else ": pass projection_dim"
            raise InputError(
                f"got labels of shape {tuple(labels.shape)}; {name} expects {(rows, size)} or "
                f"{(rows, len(columns), size)}{fix}"
            )
        labels = labels.to(columns[0].dtype)
        return [labels] * len(columns) if labels.ndim == 2 else labels.unbind(dim=1)

    def _distance(self, students: Tensor, teachers: Tensor) -> Tensor:
        """Return the mean distance of two (batch, size) tensors, a scalar."""
        if self.distance_metric == "mse":
            return F.mse_loss(students, teachers)
        if self.distance_metric == "l2":
            distances: Tensor = torch.linalg.vector_norm(students - teachers, dim=1)
            return distances.mean()
        return (1 - F.cosine_similarity(students, teachers)).mean()

    def check_rows(self, texts: Sequence[str], labels: Labels | None) -> None:
        """Check that training rows fit: labels are embeddings, one for each row or one for each text."""
        super().check_rows(texts, labels)
        size = sizes_of(labels)
        if len(size) == 2 and size[0] != len(texts):
            raise InputError(
                f"got {size[0]} embeddings in a label for {len(texts)} text column(s) {list(texts)}; "
                f"{type(self).__name__} expects one for each column, or one for all: choose the columns"
            )
        if not size:
            raise InputError(
                f"got labels of one number; {type(self).__name__} expects a teacher's embedding, a list of numbers, "
                f"for each row: put it in the column label"
            )

    def get_config_dict(self) -> dict[str, Any]:
        """Return distance and size of the projection."""
        return {"distance_metric": self.distance_metric, "projection_dim": self.projection_dim}


class MSELoss(EmbedDistillLoss):
    """The mean squared difference of embeddings and a teacher's, `EmbedDistillLoss` with the distance "mse".

    With translations of one text as columns, it makes a model multilingual (Reimers and Gurevych 2020,
    https://arxiv.org/abs/2004.09813).

    Args:
        model: the model to train; not used without `projection_dim`.
        projection_dim: size of the teacher's embeddings; see `EmbedDistillLoss`.

    Raises:
        ConfigError: the projection has no model to take its size from.
    """

    def __init__(self, model: object = None, *, projection_dim: int | None = None) -> None:
        super().__init__(model, distance_metric="mse", projection_dim=projection_dim)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the size of the projection."""
        return {"projection_dim": self.projection_dim}


class MarginMSELoss(Loss):
    """The mean squared difference of margins, `s(query, positive) - s(query, negative)`, and a teacher's.

    Columns are (query, positive) and one or more negatives. The label of a row is the teacher's margin for each
    negative, or its scores of the positive and of each negative, whose differences are the margins (Hofstätter et al.
    2021, https://arxiv.org/abs/2010.02666).

    Args:
        model: not used; accepted because code for the reference passes it.
        similarity_fct: row by row, (n, d) and (n, d) to (n,).

    Raises:
        ConfigError: the similarity is no function.
    """

    min_columns = 3
    needs_labels = True
    label_kind = "numbers"

    def __init__(self, model: object = None, *, similarity_fct: SimilarityMatrix = pairwise_dot_score) -> None:
        super().__init__()
        self.similarity_fct = check_callable(similarity_fct, "similarity_fct", "util.pairwise_dot_score")

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the loss of three or more (batch, dim) tensors and (batch, size) labels, a scalar."""
        queries, positives, *negatives = self.columns(embeddings)
        rows, count = len(queries), len(negatives)
        targets = None if labels is None else labels.reshape(rows, -1) if labels.numel() % max(rows, 1) == 0 else labels
        if targets is None or targets.ndim != 2 or targets.shape[1] not in (count, count + 1):
            got = "no labels" if labels is None else f"labels of shape {tuple(labels.shape)}"
            raise InputError(
                f"got {got}; {type(self).__name__} expects {(rows, count)}, the margins, or {(rows, count + 1)}, the "
                f"scores of the positive and the negatives"
            )
        if targets.shape[1] == count + 1:
            targets = targets[:, :1] - targets[:, 1:]
        right = self.similarity_fct(queries, positives)
        margins = torch.stack([right - self.similarity_fct(queries, negative) for negative in negatives], dim=1)
        return F.mse_loss(margins, targets.to(margins.dtype))

    def check_rows(self, texts: Sequence[str], labels: Labels | None) -> None:
        """Check that training rows fit: a margin for each negative, or a score for each text but the first."""
        super().check_rows(texts, labels)
        count, size = len(texts) - 2, sizes_of(labels) or (1,)
        if size not in ((count,), (count + 1,)):
            raise InputError(
                f"got labels of {' x '.join(map(str, size))} number(s) for the text columns {list(texts)}; "
                f"{type(self).__name__} expects {count}, a margin for each negative, or {count + 1}, a score for each "
                f"text but the first: choose the columns"
            )

    def get_config_dict(self) -> dict[str, Any]:
        """Return the similarity."""
        return {"similarity_fct": function_name(self.similarity_fct)}


class DistillKLDivLoss(Loss):
    """KL divergence of the student's softmax over the candidates from the teacher's, the mean over the batch.

    Columns are (query, positive) and one or more negatives. The label of a row is the teacher's scores of the positive
    and of each negative. Scores are divided by a temperature before the softmax; the loss is multiplied by the square
    of the student's (Hinton et al. 2015; Lin et al. 2020, https://arxiv.org/abs/2010.11386).

    Args:
        model: not used; accepted because code for the reference passes it.
        similarity_fct: row by row, (n, d) and (n, d) to (n,).
        temperature: of student and teacher.
        student_temperature: of the student, if it is another one.
        teacher_temperature: of the teacher, if it is another one.

    Raises:
        ConfigError: a temperature is not positive, or the similarity is no function.
    """

    min_columns = 3
    needs_labels = True
    label_kind = "numbers"

    def __init__(
        self,
        model: object = None,
        *,
        similarity_fct: SimilarityMatrix = pairwise_dot_score,
        temperature: float = 1.0,
        student_temperature: float | None = None,
        teacher_temperature: float | None = None,
    ) -> None:
        super().__init__()
        self.similarity_fct = check_callable(similarity_fct, "similarity_fct", "util.pairwise_dot_score")
        self.temperature = check_positive(temperature, "temperature")
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        for name, value in self._overrides().items():
            check_positive(value, name)

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the loss of three or more (batch, dim) tensors and (batch, candidates) labels, a scalar."""
        queries, *candidates = self.columns(embeddings)
        shape = (len(queries), len(candidates))
        if labels is None or labels.shape != shape:
            got = "no labels" if labels is None else f"labels of shape {tuple(labels.shape)}"
            raise InputError(f"got {got}; {type(self).__name__} expects {shape}, a score for each candidate")
        student, teacher = (value or self.temperature for value in (self.student_temperature, self.teacher_temperature))
        scores = torch.stack([self.similarity_fct(queries, texts) for texts in candidates], dim=1)
        wanted = (labels.to(scores.dtype) / teacher).softmax(dim=1)
        divergence = F.kl_div((scores / student).log_softmax(dim=1), wanted, reduction="batchmean")
        return divergence * student**2

    def check_rows(self, texts: Sequence[str], labels: Labels | None) -> None:
        """Check that training rows fit: a score for each text but the first."""
        super().check_rows(texts, labels)
        size = sizes_of(labels) or (1,)
        if size != (len(texts) - 1,):
            raise InputError(
                f"got labels of {' x '.join(map(str, size))} number(s) for the text columns {list(texts)}; "
                f"{type(self).__name__} expects {len(texts) - 1}, a score for each text but the first: choose the "
                f"columns"
            )

    def get_config_dict(self) -> dict[str, Any]:
        """Return similarity and temperatures."""
        similarity = function_name(self.similarity_fct)
        return {"similarity_fct": similarity, "temperature": self.temperature, **self._overrides()}

    def _overrides(self) -> dict[str, float]:
        values = {"student_temperature": self.student_temperature, "teacher_temperature": self.teacher_temperature}
        return {name: value for name, value in values.items() if value is not None}
