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
from ...packing import PackedBatch, pad

_DTYPES = {"int": torch.int64, "bool": torch.bool}


class OwnLoss(Loss):
    """A loss of the user's own, given the tokens of each column as the features that the model takes.

    Args:
        loss: called with a list of features, one for each column, and the labels, (rows,), or None.
        padding: id of the padding token.
        labels: type of the labels in the data, which decides their dtype.
        compute: called in place of `loss`, or None.
    """

    def __init__(
        self, loss: nn.Module, *, padding: int, labels: LabelType, compute: Callable[..., Any] | None = None
    ) -> None:
        super().__init__()
        self.loss = loss
        self._padding, self._labels, self._compute = padding, labels, compute

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
        return (self._compute or self.loss)(
            [padded_features(column, padding=self._padding) for column in tokens], labels
        )


def padded_features(batch: PackedBatch, *, padding: int) -> dict[str, Any]:
    """Return texts as the features of the reference's models, in the order of the rows.

    Args:
        batch: the texts.
        padding: id of the padding token.

    Returns:
        input_ids, attention_mask and token_type_ids, int64, (texts, longest); and prompt_length where some leading
        tokens are left out of pooling.
    """
    ids, mask = pad(batch.input_ids, batch)
    types = ids.new_zeros(ids.shape) if batch.token_types is None else pad(batch.token_types, batch)[0]
    features: dict[str, Any] = {
        "input_ids": ids.masked_fill(~mask, padding)[batch.restore],
        "attention_mask": mask.to(torch.int64)[batch.restore],
        "token_type_ids": types[batch.restore],
    }
    if batch.prompt_length:
        features["prompt_length"] = batch.prompt_length
    return features


def put_model(loss: nn.Module, model: EmbeddingModel) -> None:
    """Make `model` the one that a loss, and each loss inside it, holds as its `model`."""
    for part in [one for one in loss.modules() if not isinstance(one, EmbeddingModel)]:
        if isinstance(part._modules.get("model"), EmbeddingModel):
            part.model = model
