"""Losses of several sizes of an embedding at once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError, InputError, warn
from ..similarity import normalize_embeddings
from .base import Labels, Loss, aligned, check_count, check_number


class MatryoshkaLoss(Loss):
    """The weighted sum of a loss over embeddings cut to several sizes, each brought to length 1.

    Columns and labels are those of the loss (Kusupati et al. 2022, https://arxiv.org/abs/2205.13147).

    Args:
        model: the model to train, for the size of its embeddings; None checks sizes in training.
        loss: any loss over embeddings.
        matryoshka_dims: the sizes.
        matryoshka_weights: the weight of each; 1 by default.
        n_dims_per_step: use this many sizes in a step, drawn with Python's `random`; -1 for all.

    Raises:
        ConfigError: a size, weight or number is not valid.
    """

    def __init__(
        self,
        model: object,
        loss: Loss,
        matryoshka_dims: Sequence[int],
        matryoshka_weights: Sequence[float] | None = None,
        *,
        n_dims_per_step: int = -1,
    ) -> None:
        super().__init__()
        if not isinstance(loss, Loss):
            raise ConfigError(f"got {type(loss).__name__} as loss; expected a loss, such as CoSENTLoss(): make one")
        weights = [1] * len(matryoshka_dims) if matryoshka_weights is None else list(matryoshka_weights)
        _check_sizes(matryoshka_dims, weights, model)
        if isinstance(n_dims_per_step, bool) or not (n_dims_per_step == -1 or n_dims_per_step >= 1):
            raise ConfigError(f"got n_dims_per_step={n_dims_per_step!r}; expected at least 1, or -1 for all sizes")
        pairs = sorted(zip(matryoshka_dims, weights, strict=True), key=lambda pair: pair[0], reverse=True)
        self.loss = loss
        self.matryoshka_dims = tuple(size for size, _ in pairs)
        self.matryoshka_weights = tuple(weight for _, weight in pairs)
        self.n_dims_per_step = n_dims_per_step
        self.needs_labels, self.label_kind = loss.needs_labels, loss.label_kind
        self.trains_guide, self.cached = loss.trains_guide, loss.cached
        self.mini_batch_size, self.mini_batch_num_tokens = loss.mini_batch_size, loss.mini_batch_num_tokens

    @property
    def guide(self) -> nn.Module | None:
        """The guide of the inner loss."""
        return self.loss.guide

    def forward(
        self, embeddings: Sequence[Tensor], labels: Tensor | None = None, guided: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return the loss of (batch, dim) tensors and the labels and guide's embeddings of the inner loss, a scalar."""
        size = embeddings[0].shape[1]
        if self.matryoshka_dims[0] > size:
            raise InputError(
                f"got embeddings of {size} dimensions; {type(self).__name__} expects at least "
                f"{self.matryoshka_dims[0]}, the largest of matryoshka_dims"
            )
        chosen = list(range(len(self.matryoshka_dims)))
        if 0 < self.n_dims_per_step < len(chosen):
            chosen = sorted(random.sample(chosen, self.n_dims_per_step))
        columns = aligned(embeddings, loss=type(self).__name__)
        others = list(guided)
        total = columns[0].new_zeros(())
        for index in chosen:
            size = self.matryoshka_dims[index]
            columns = [normalize_embeddings(column[:, :size]) for column in columns]  # cut from the size before
            if self.trains_guide:  # whose embeddings are to be cut too
                others = [normalize_embeddings(column[:, :size]) for column in others]
            value = self.loss(columns, labels) if self.guide is None else self.loss(columns, labels, others)
            total = total + self.matryoshka_weights[index] * value
        return total

    def check_rows(self, texts: Sequence[str], labels: Labels | None) -> None:
        """Check that training rows fit the inner loss."""
        self.loss.check_rows(texts, labels)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the name of the inner loss, sizes and weights."""
        return {
            "loss": type(self.loss).__name__,
            "matryoshka_dims": self.matryoshka_dims,
            "matryoshka_weights": self.matryoshka_weights,
            "n_dims_per_step": self.n_dims_per_step,
        }


def _check_sizes(sizes: Sequence[int], weights: Sequence[float], model: object) -> None:
    if not sizes:
        raise ConfigError("got no matryoshka_dims; expected at least one size")
    for size in sizes:
        check_count(size, "matryoshka_dims")
    if len(weights) != len(sizes):
        raise ConfigError(f"got {len(weights)} matryoshka_weights for {len(sizes)} sizes; expected one for each")
    for weight in weights:
        check_number(weight, "matryoshka_weights")
    measure = getattr(model, "get_sentence_embedding_dimension", None)
    full = measure() if callable(measure) else None
    if full is not None and max(sizes) > full:
        raise ConfigError(f"got matryoshka_dims up to {max(sizes)}; expected at most {full}, the embeddings' size")
    if full is not None and full not in sizes:
        warn(f"matryoshka_dims {list(sizes)} leave out {full}, the embeddings' size, which is then not trained")
