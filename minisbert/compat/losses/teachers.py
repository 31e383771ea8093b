"""Losses that take a teacher's embeddings or scores as labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ... import losses
from ...errors import ConfigError, InputError, first_line
from ...losses.base import dimension_of
from ...losses.distillation import EmbeddingDistance
from ...similarity import SimilarityMatrix, pairwise_dot_score
from .features import FeatureLoss


class EmbedDistillLoss(FeatureLoss, losses.EmbedDistillLoss):
    """`minisbert.losses.EmbedDistillLoss` that holds the model.

    Args:
        model: embeds the texts.
        distance_metric: "cosine", "l2" or "mse".
        projection_dim: size of the teacher's embeddings; a linear layer to this size is trained with the model.
    """

    def __init__(
        self, model: Any, distance_metric: EmbeddingDistance = "cosine", projection_dim: int | None = None
    ) -> None:
        losses.EmbedDistillLoss.__init__(self, model, distance_metric=distance_metric, projection_dim=projection_dim)
        self.hold(model)
        self._to_device()

    def of_features(self, columns: Any, labels: Tensor | None) -> Any:
        """Return the loss of the tokens of each column and the teacher's embeddings."""
        return self.computed([self.embed(texts) for texts in columns], labels)

    def of_given(self, given: Any, labels: Tensor | None, guided: Any) -> Any:
        """Return the loss of (batch, dim) tensors and the teacher's embeddings."""
        return self.computed(given, labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], teacher_embeddings: Any) -> Any:
        """Return the loss of the embeddings of each column, (batch, dim), and the teacher's of each, (batch, size)."""
        return self.computed(embeddings, torch.stack(list(teacher_embeddings), dim=1))

    def save_projection(self, path: str | Path) -> None:
        """Write the linear layer to a safetensors file.

        Raises:
            ConfigError: there is none.
        """
        if self.projection is None:
            raise ConfigError("got a loss without a projection; expected one to save: pass projection_dim")
        tensors = {name: tensor.detach().contiguous() for name, tensor in self.projection.state_dict().items()}
        save_file(tensors, str(path))

    def load_projection(self, path: str | Path) -> None:
        """Read the linear layer from a safetensors file.

        Raises:
            InputError: it cannot be read.
            ConfigError: it has other sizes than the model or the loss.
        """
        try:
            tensors = load_file(str(path))
            size, dimension = tensors["weight"].shape
        except Exception as error:  # safetensors raises errors of any type
            raise InputError(f"{path} cannot be read ({first_line(error)}); expected a saved projection") from None
        expected = (dimension_of(self.embedder, type(self).__name__), self.projection_dim or size)
        if (dimension, size) != expected:
            raise ConfigError(
                f"got a projection from {dimension} to {size} dimensions; expected from {expected[0]} to "
                f"{expected[1]}: load another one"
            )
        self.projection, self.projection_dim = nn.Linear(dimension, size), size
        self.projection.load_state_dict(tensors)
        self._to_device()

    def _to_device(self) -> None:
        if self.projection is not None:
            self.projection.to(getattr(self.embedder, "device", None))


class MSELoss(EmbedDistillLoss, losses.MSELoss):
    """`minisbert.losses.MSELoss` that holds the model.

    Args:
        model: embeds the texts.
        projection_dim: size of the teacher's embeddings; see `EmbedDistillLoss`.
    """

    def __init__(self, model: Any, projection_dim: int | None = None) -> None:
        super().__init__(model, distance_metric="mse", projection_dim=projection_dim)


class MarginMSELoss(FeatureLoss, losses.MarginMSELoss):
    """`minisbert.losses.MarginMSELoss` that holds the model.

    Args:
        model: embeds the texts.
        similarity_fct: row by row, (n, d) and (n, d) to (n,).
    """

    def __init__(self, model: Any, similarity_fct: SimilarityMatrix = pairwise_dot_score) -> None:
        super().__init__(model, similarity_fct=similarity_fct)
        self.hold(model)


class DistillKLDivLoss(FeatureLoss, losses.DistillKLDivLoss):
    """`minisbert.losses.DistillKLDivLoss` that holds the model.

    Args:
        model: embeds the texts.
        similarity_fct: row by row, (n, d) and (n, d) to (n,).
        temperature: of student and teacher.
        student_temperature: of the student, if it is another one.
        teacher_temperature: of the teacher, if it is another one.
    """

    def __init__(
        self,
        model: Any,
        similarity_fct: SimilarityMatrix = pairwise_dot_score,
        temperature: float = 1.0,
        student_temperature: float | None = None,
        teacher_temperature: float | None = None,
    ) -> None:
        super().__init__(
            model,
            similarity_fct=similarity_fct,
            temperature=temperature,
            student_temperature=student_temperature,
            teacher_temperature=teacher_temperature,
        )
        self.hold(model)
