"""Losses of several sizes of an embedding, and of several layers, over another loss that holds the model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn

from ... import losses
from ...losses.matryoshka import LayerWeighting
from ...training.dataset import TrainingBatch
from ...training.given import Layers
from ..checks import check_list
from .features import FeatureLoss, Texts, packed


class _Wrapping(FeatureLoss):
    """Base of the losses that compute another one several times."""

    model: Any
    loss: Any

    def guided_by(self, columns: Sequence[Texts]) -> list[list[Tensor]]:
        """Return the embeddings of each column by the guide of the inner loss, in a list; without one it is empty."""
        inner = self.innermost
        if inner.guide is None:
            return []
        if inner.trains_guide:  # a copy of the model, which reads its tokens
            return [[inner.guide(dict(texts))["sentence_embedding"] for texts in columns]]
        return [[inner.judge(texts) for texts in columns]]

    @property
    def innermost(self) -> Any:
        """The loss that is computed in the end."""
        return self.loss.innermost if isinstance(self.loss, _Wrapping) else self.loss

    def of_given(self, given: Any, labels: Tensor | None, guided: Sequence[Tensor]) -> Any:
        """Return the loss of what it takes in `minisbert.losses`."""
        return self.computed(given, labels, guided)


class OverEmbeddings(losses.Loss):
    """A loss that a user wrote for feature dicts, computed of embeddings: its model hands on what it is given.

    Args:
        loss: calls the model on the features of each column, and reads "sentence_embedding" of what it returns.
        model: the model that it calls.
    """

    min_columns = 1
    takes_labels = True

    def __init__(self, loss: nn.Module, model: Any) -> None:
        super().__init__()
        self.written, self._model = loss, (model,)

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Any:
        """Return the loss of (batch, dim) tensors and labels."""
        (model,) = self._model
        before = vars(model).get("forward")
        model.forward = lambda features, **options: features
        try:
            return self.written([{"sentence_embedding": column} for column in embeddings], labels)
        finally:
            del model.forward  # that of its class is left
            if before is not None:
                model.forward = before


def inner_loss(loss: Any, model: Any) -> Any:
    """Return a loss as one over embeddings, with its class name."""
    if isinstance(loss, losses.Loss) and not getattr(loss, "rewritten", False):
        return loss
    return type(type(loss).__name__, (OverEmbeddings,), {})(loss, model) if isinstance(loss, nn.Module) else loss


class MatryoshkaLoss(_Wrapping, losses.MatryoshkaLoss):
    """`minisbert.losses.MatryoshkaLoss` that holds the model.

    Args:
        model: embeds the texts.
        loss: a loss of this module, or one of your own for feature dicts.
        matryoshka_dims: the sizes.
        matryoshka_weights: the weight of each; 1 by default.
        n_dims_per_step: use this many sizes in a step, drawn with Python's `random`; -1 for all.
    """

    def __init__(
        self,
        model: Any,
        loss: Any,
        matryoshka_dims: Sequence[int],
        matryoshka_weights: Sequence[float] | None = None,
        n_dims_per_step: int = -1,
    ) -> None:
        super().__init__(
            model,
            inner_loss(loss, model),
            list(check_list(matryoshka_dims, "matryoshka_dims", of="whole numbers")),
            None if matryoshka_weights is None else list(matryoshka_weights),
            n_dims_per_step=n_dims_per_step,
        )
        self.hold(model)

    def of_features(self, columns: Sequence[Texts], labels: Tensor | None) -> Any:
        """Return the loss of the tokens of each column, embedded as the inner loss does it."""
        embed = getattr(self.innermost, "embed", self.embed)
        return self.computed([embed(texts) for texts in columns], labels, *self.guided_by(columns))


class AdaptiveLayerLoss(_Wrapping, losses.AdaptiveLayerLoss):
    """`minisbert.losses.AdaptiveLayerLoss` that holds the model.

    Args:
        model: embeds the texts.
        loss: a loss of this module or of your own, but none with a gradient cache.
        n_layers_per_step: use this many layers beside the last in a step, drawn with Python's `random`; -1 for all.
        last_layer_weight: weight of the last layer.
        prior_layers_weight: weight of the others.
        kl_div_weight: weight of the divergence of the others from the last.
        kl_temperature: temperature of the divergence; 0 for none.
        layer_weighting: "uniform", "log", "linear", or a function of the layer.
    """

    def __init__(
        self,
        model: Any,
        loss: Any,
        n_layers_per_step: int = 1,
        last_layer_weight: float = 1.0,
        prior_layers_weight: float = 1.0,
        kl_div_weight: float = 1.0,
        kl_temperature: float = 0.3,
        layer_weighting: LayerWeighting = "uniform",
    ) -> None:
        losses.AdaptiveLayerLoss.__init__(
            self,
            model,
            inner_loss(loss, model),
            n_layers_per_step=n_layers_per_step,
            last_layer_weight=last_layer_weight,
            prior_layers_weight=prior_layers_weight,
            kl_div_weight=kl_div_weight,
            kl_temperature=kl_temperature,
            layer_weighting=layer_weighting,
        )
        self.hold(model)

    def of_features(self, columns: Sequence[Texts], labels: Tensor | None) -> Any:
        """Return the loss of what each layer makes of the tokens of each column."""
        texts = tuple(map(packed, columns))
        batch = TrainingBatch(0, texts, (1,) * len(texts), labels, sum(one.tokens for one in texts))
        return self.computed(Layers(self.model, batch, nullcontext), labels, *self.guided_by(columns))

    def get_layer_weight(self, layer_idx: int) -> float:
        """Return the weight of a layer among those before the last."""
        return float(self.weight_of(layer_idx))


class Matryoshka2dLoss(AdaptiveLayerLoss, losses.Matryoshka2dLoss):
    """`minisbert.losses.Matryoshka2dLoss` that holds the model.

    Args:
        model: embeds the texts.
        loss: a loss of this module or of your own, but none with a gradient cache.
        matryoshka_dims: the sizes.
        matryoshka_weights: the weight of each; 1 by default.
        n_layers_per_step: as in `AdaptiveLayerLoss`.
        n_dims_per_step: as in `MatryoshkaLoss`.
        last_layer_weight: as in `AdaptiveLayerLoss`, like all that follow.
        prior_layers_weight: see there.
        kl_div_weight: see there.
        kl_temperature: see there.
        layer_weighting: see there.
    """

    def __init__(
        self,
        model: Any,
        loss: Any,
        matryoshka_dims: Sequence[int],
        matryoshka_weights: Sequence[float] | None = None,
        n_layers_per_step: int = 1,
        n_dims_per_step: int = 1,
        last_layer_weight: float = 1.0,
        prior_layers_weight: float = 1.0,
        kl_div_weight: float = 1.0,
        kl_temperature: float = 0.3,
        layer_weighting: LayerWeighting = "uniform",
    ) -> None:
        super().__init__(
            model,
            MatryoshkaLoss(model, loss, matryoshka_dims, matryoshka_weights, n_dims_per_step=n_dims_per_step),
            n_layers_per_step=n_layers_per_step,
            last_layer_weight=last_layer_weight,
            prior_layers_weight=prior_layers_weight,
            kl_div_weight=kl_div_weight,
            kl_temperature=kl_temperature,
            layer_weighting=layer_weighting,
        )
