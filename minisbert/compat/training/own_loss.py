"""Losses that users write for the reference: modules of features, which call the model themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...data.labels import LabelType
from ...losses import Loss
from ...losses.base import Form, Labels
from ...model import EmbeddingModel
from ...packing import PackedBatch

_DTYPES = {"int": torch.int64, "bool": torch.bool}


class OwnLoss(Loss):
    """A loss of the user's own, given the tokens of each column as the features that the model takes.

    Args:
        loss: called with a list of features, one for each column, and the labels, (rows,), or None.
        features: makes the features of packed texts, in the order of the rows.
        labels: type of the labels in the data, which decides their dtype.
        compute: called in place of `loss`, or None.
    """

    def __init__(
        self,
        loss: nn.Module,
        *,
        features: Callable[[PackedBatch], dict[str, Any]],
        labels: LabelType,
        compute: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        self.loss = loss
        self._features, self._labels, self._compute = features, labels, compute

    @property
    def takes_labels(self) -> bool:
        """True, as it is not known."""
        return True

    @property
    def paper(self) -> str:
        """The class name of the loss."""
        return type(self.loss).__name__

    def get_config_dict(self) -> dict[str, Any]:
        """Return the parameters that the loss names."""
        named = getattr(self.loss, "get_config_dict", None)
        return dict(named()) if callable(named) else {}

    def check_rows(self, texts: Sequence[str], labels: Labels | None) -> None:
        """Take any rows, each column by its tokens."""
        forms: tuple[Form, ...] = ("tokens",)
        self.forms = forms * len(texts)

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None, tokens: Sequence[PackedBatch] = ()) -> Any:
        """Return what the loss makes of a batch: a number, (), or several by name.

        Args:
            embeddings: none.
            labels: float32, (rows,) or (rows, size), or None.
            tokens: the texts of each column.
        """
        if labels is not None and self._labels in _DTYPES:
            labels = labels.to(_DTYPES[self._labels])
        return (self._compute or self.loss)([self._features(column) for column in tokens], labels)


def put_model(loss: nn.Module, model: EmbeddingModel) -> None:
    """Make `model` the one that a loss, and each loss inside it, holds as its `model`."""
    for part in [one for one in loss.modules() if not isinstance(one, EmbeddingModel)]:
        if isinstance(part._modules.get("model"), EmbeddingModel):
            part.model = model
