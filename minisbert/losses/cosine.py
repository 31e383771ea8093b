"""Regression of the cosine similarity of two texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import InputError
from .base import Loss, aligned, check_callable, check_labels


class CosineSimilarityLoss(Loss):
    """`loss_fct(cos_score_transformation(cos(a, b)), label)`, by default the mean squared error.

    Two text columns and a label for each row, from -1 to 1 (usually 0 to 1).

    Args:
        model: not used; accepted because code for the reference passes it.
        loss_fct: compares (batch,) scores with (batch,) labels.
        cos_score_transformation: applied to the cosines first.
    """

    max_columns = 2
    needs_labels = True

    def __init__(
        self,
        model: object = None,
        *,
        loss_fct: nn.Module | None = None,
        cos_score_transformation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.loss_fct = nn.MSELoss() if loss_fct is None else check_callable(loss_fct, "loss_fct", "torch.nn.L1Loss()")
        self.cos_score_transformation = (
            nn.Identity()
            if cos_score_transformation is None
            else check_callable(cos_score_transformation, "cos_score_transformation", "torch.nn.Tanh()")
        )
        # With another error function or transformation, labels may mean something other than a cosine.
        self.recordable = loss_fct is None and cos_score_transformation is None
        self.label_range = (-1.0, 1.0) if self.recordable else None

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the loss of two (batch, dim) tensors and (batch,) labels, a scalar."""
        name = type(self).__name__
        if len(embeddings) != 2:
            raise InputError(f"got {len(embeddings)} text column(s); {name} expects 2")
        first, second = aligned(embeddings, loss=name)
        target = check_labels(labels, len(first), loss=name).to(first.dtype)  # torch 2.6 wants one dtype
        cosines = torch.cosine_similarity(first, second)  # (batch,)
        scores = self.cos_score_transformation(cosines)
        return cast(Callable[[Tensor, Tensor], Tensor], self.loss_fct)(scores, target)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the error function and the transformation, by their full names."""
        return {
            "loss_fct": full_name(type(self.loss_fct)),
            "cos_score_transformation": full_name(type(self.cos_score_transformation)),
        }


def full_name(kind: type[nn.Module]) -> str:
    """Return the name of a class with its module's, as cards print it."""
    return f"{kind.__module__}.{kind.__qualname__}"
