"""Contrastive tension: a model and a trained copy of it must agree on which texts are the same."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, InputError
from ..similarity import SimilarityMatrix, cos_sim
from .base import Loss, aligned, check_callable, check_labels, check_positive, function_name


class ContrastiveTensionLoss(Loss):
    """Binary cross entropy of the dot products of first texts under a copy of the model and second texts under it.

    Columns are two texts; the label of a row is 1 if they are the same and 0 if not, and where rows have no labels
    their tokens say so. The terms are added up, not averaged. `ContrastiveTensionDataLoader` draws such rows from
    texts. The copy starts from the weights of the model and is trained too; it is not saved with the model (Carlsson et
    al. 2021, https://openreview.net/forum?id=Ov_sMNau-PF).

    Args:
        model: the model to train, which is copied.

    Attributes:
        copied: the copy.

    Raises:
        ConfigError: there is no model.
    """

    max_columns = 2
    label_range = (0.0, 1.0)
    labels_equal_texts = True
    trains_guide = True
    forms = ("guide", "model")

    def __init__(self, model: object) -> None:
        super().__init__()
        self.copied = _copy(model, type(self).__name__)

    @property
    def guide(self) -> nn.Module:
        """The copy of the model."""
        return self.copied

    def check_model(self, model: nn.Module) -> None:
        """Check that the copy is one of a model like this."""
        _check_copied(self.copied, model, type(self).__name__)

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the loss of first texts under the copy, second texts under the model, and labels, a scalar."""
        first, second = self.columns(embeddings)
        if first.shape != second.shape:
            raise InputError(
                f"got embeddings of {first.shape[1]} dimensions by the copy and {second.shape[1]} by the model; "
                f"{type(self).__name__} expects equal sizes: make the loss for the model that is trained"
            )
        same = check_labels(labels, len(first), loss=type(self).__name__, exact=True)
        scores = (first[:, None] @ second[:, :, None]).view(-1)  # (batch,), in the reference's rounding
        return F.binary_cross_entropy_with_logits(scores, same.to(scores.dtype), reduction="sum")


class ContrastiveTensionLossInBatchNegatives(Loss):
    """Cross entropy of each text under a copy of the model among the texts of the batch under the model, and reversed.

    One text column, no labels. The copy starts from the weights of the model and is trained too; it is not saved with
    the model (Carlsson et al. 2021, https://openreview.net/forum?id=Ov_sMNau-PF).

    Args:
        model: the model to train, which is copied.
        scale: multiplies the similarities; it is trained, by its logarithm.
        similarity_fct: all pairs, (n, d) and (m, d) to (n, m).

    Attributes:
        copied: the copy.
        logit_scale: logarithm of the scale, a parameter.

    Raises:
        ConfigError: there is no model, or the scale is not positive.
    """

    min_columns = 1
    max_columns = 1
    trains_guide = True

    def __init__(self, model: object, *, scale: float = 20.0, similarity_fct: SimilarityMatrix = cos_sim) -> None:
        super().__init__()
        copied = _copy(model, type(self).__name__)
        self.similarity_fct = check_callable(similarity_fct, "similarity_fct", "util.cos_sim")
        self.logit_scale = nn.Parameter(torch.tensor(math.log(check_positive(scale, "scale"))))
        self.copied = copied

    @property
    def guide(self) -> nn.Module:
        """The copy of the model."""
        return self.copied

    def check_model(self, model: nn.Module) -> None:
        """Check that the copy is one of a model like this."""
        _check_copied(self.copied, model, type(self).__name__)

    def forward(
        self, embeddings: Sequence[Tensor], labels: Tensor | None = None, guided: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return the loss of one (batch, dim) tensor of the model and one of the copy, a scalar."""
        (texts,) = self.columns(embeddings)
        if len(guided) != 1 or len(guided[0]) != len(texts):
            raise InputError(
                f"got embeddings of the copy for {[len(part) for part in guided]} rows; {type(self).__name__} expects "
                f"{[len(texts)]}: pass them as third argument"
            )
        (copies,) = aligned(guided, loss=type(self).__name__)
        scores = self.similarity_fct(copies, texts) * self.logit_scale.exp()  # (batch, batch)
        own = torch.arange(len(texts), device=texts.device)
        return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2

    def get_config_dict(self) -> dict[str, Any]:
        """Return the scale, as far as it is trained, and the similarity."""
        return {"scale": self.logit_scale.exp().item(), "similarity_fct": function_name(self.similarity_fct)}


def _check_copied(copied: nn.Module, model: nn.Module, loss: str) -> None:
    """Check that a copy reads the tokens of a model."""
    transformers = [getattr(one, "transformer", None) for one in (copied, model)]
    configs = [getattr(one, "config", None) for one in transformers]
    if configs[0] != configs[1]:
        raise ConfigError(
            f"got a {loss} made for another model; expected one for the model that is trained: make it again"
        )
    sizes = [getattr(getattr(one, "auto_model", None), "vocabulary", None) for one in transformers]
    if sizes[0] != sizes[1]:
        raise ConfigError(
            f"got a {loss} with a copy of {sizes[0]} word embeddings for a model of {sizes[1]}; expected equal "
            f"numbers: make the loss after resize_token_embeddings"
        )


def _copy(model: object, loss: str) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise ConfigError(f"got the model {type(model).__name__}; {loss} copies it: pass it first")
    return copy.deepcopy(model)
