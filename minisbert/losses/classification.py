"""Classification of pairs of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, InputError, check_count, check_flag
from .base import LARGEST_CLASS, LARGEST_SIZE, Labels, Loss, check_callable

_EXAMPLE = "torch.nn.CrossEntropyLoss()"


class SoftmaxLoss(Loss):
    """Cross entropy of a linear classifier over two embeddings u and v, by default of [u, v, |u - v|].

    Two text columns and a class for each row, numbered from 0. The classifier is trained with the model, and is not
    saved with it (SBERT: Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084).

    Args:
        model: not used; accepted because code for the reference passes it.
        embedding_dimension: size of the embeddings.
        num_labels: number of classes.
        concatenation_sent_rep: the classifier sees u and v.
        concatenation_sent_difference: it sees |u - v|.
        concatenation_sent_multiplication: it sees u * v.
        loss_fct: compares (batch, num_labels) scores with (batch,) classes; cross entropy by default.

    Attributes:
        classifier: the linear layer.

    Raises:
        ConfigError: a size is no whole number of at least 1, or the classifier sees nothing.
    """

    max_columns = 2
    needs_labels = True
    label_kind = "class"

    def __init__(
        self,
        model: object,
        embedding_dimension: int,
        num_labels: int,
        *,
        concatenation_sent_rep: bool = True,
        concatenation_sent_difference: bool = True,
        concatenation_sent_multiplication: bool = False,
        loss_fct: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.num_labels = check_count(num_labels, "num_labels", most=LARGEST_CLASS + 1)
        size = check_count(embedding_dimension, "embedding_dimension", most=LARGEST_SIZE)
        self.concatenation_sent_rep = check_flag(concatenation_sent_rep, "concatenation_sent_rep")
        self.concatenation_sent_difference = check_flag(concatenation_sent_difference, "concatenation_sent_difference")
        self.concatenation_sent_multiplication = check_flag(
            concatenation_sent_multiplication, "concatenation_sent_multiplication"
        )
        parts = 2 * concatenation_sent_rep + concatenation_sent_difference + concatenation_sent_multiplication
        if not parts:
            raise ConfigError("got no concatenation for the classifier; expected at least one: set it to True")
        self.classifier = nn.Linear(parts * size, self.num_labels)
        self.loss_fct = nn.CrossEntropyLoss() if loss_fct is None else check_callable(loss_fct, "loss_fct", _EXAMPLE)

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the loss of two (batch, dim) tensors and (batch,) classes, a scalar."""
        scores = self.scores(embeddings)
        if labels is None or labels.numel() != len(scores):
            got = "no classes" if labels is None else f"{labels.numel()} classes for {len(scores)} rows"
            raise InputError(f"got {got}; {type(self).__name__} expects one for each row")
        return cast(Tensor, self.loss_fct(scores, labels.view(-1).long()))

    def scores(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Return the scores of all classes for two (batch, dim) tensors: (batch, num_labels)."""
        first, second = self.columns(embeddings)
        parts = [first, second] if self.concatenation_sent_rep else []
        if self.concatenation_sent_difference:
            parts.append((first - second).abs())
        if self.concatenation_sent_multiplication:
            parts.append(first * second)
        return cast(Tensor, self.classifier(torch.cat(parts, dim=1)))

    def check_rows(self, texts: Sequence[str], labels: Labels | None) -> None:
        """Check that training rows fit: two texts and a class below `num_labels`."""
        super().check_rows(texts, labels)
        largest = float(np.max(labels)) if labels is not None else 0
        if largest >= self.num_labels:
            raise InputError(
                f"got classes up to {largest:g}; {type(self).__name__} expects 0 to {self.num_labels - 1}: number them "
                f"from 0, or pass num_labels={largest + 1:g}"
            )

    def get_config_dict(self) -> dict[str, Any]:
        """Return the number of classes and what the classifier sees."""
        return {
            "num_labels": self.num_labels,
            "concatenation_sent_rep": self.concatenation_sent_rep,
            "concatenation_sent_difference": self.concatenation_sent_difference,
            "concatenation_sent_multiplication": self.concatenation_sent_multiplication,
        }
