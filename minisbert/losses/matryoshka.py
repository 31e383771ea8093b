"""Losses of several sizes of an embedding, and of several layers: each is a loss, computed several times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Literal, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, InputError, check_count, shown, warn
from ..modules.pooling import WeightedLayerPooling
from ..similarity import is_number, normalize_embeddings
from .base import Loss, LossOver, aligned, check_list, check_number, check_sampled, function_name

LayerWeighting: TypeAlias = Literal["uniform", "log", "linear"] | Callable[[int], float]

_WEIGHTS: dict[str, Callable[[int], float]] = {
    "uniform": lambda layer: 1.0,
    "log": lambda layer: 1.0 / (1.0 + math.log(1 + layer)),
    "linear": lambda layer: 1.0 / (1 + layer),
}


class MatryoshkaLoss(LossOver):
    """The weighted sum of a loss over embeddings cut to several sizes, each brought to length 1.

    Columns and labels are those of the loss; labels that are embeddings are cut too, and keep the length they then have
    (Kusupati et al. 2022, https://arxiv.org/abs/2205.13147).

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
        super().__init__(loss)
        sizes = check_list(matryoshka_dims, "matryoshka_dims")
        weights = (
            [1] * len(sizes) if matryoshka_weights is None else check_list(matryoshka_weights, "matryoshka_weights")
        )
        _check_sizes(sizes, weights, model)
        check_sampled(n_dims_per_step, "n_dims_per_step", of="sizes")
        pairs = sorted(zip(sizes, weights, strict=True), key=lambda pair: pair[0], reverse=True)
        self.matryoshka_dims = tuple(size for size, _ in pairs)
        self.matryoshka_weights = tuple(weight for _, weight in pairs)
        self.n_dims_per_step = n_dims_per_step

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
            chosen = self.drawn(chosen, self.n_dims_per_step)
        columns = aligned(embeddings, loss=type(self).__name__)
        if self.cached:
            return self._of_cached(columns, labels, guided, chosen)
        chosen.sort()
        others = list(guided)
        total = columns[0].new_zeros(())
        are_embeddings = labels is not None and labels.ndim in (2, 3) and labels.shape[-1] == size
        for index in chosen:
            size = self.matryoshka_dims[index]
            columns = [normalize_embeddings(column[:, :size]) for column in columns]  # cut from the size before
            if self.trains_guide:  # whose embeddings are to be cut too
                others = [normalize_embeddings(column[:, :size]) for column in others]
            total = total + self.matryoshka_weights[index] * self.inner(
                columns, labels[..., :size] if are_embeddings and labels is not None else labels, others
            )
        return total

    def _of_cached(
        self, columns: Sequence[Tensor], labels: Tensor | None, guided: Sequence[Tensor], chosen: Sequence[int]
    ) -> Tensor:
        """Return the sum over a loss with a gradient cache, of which the reference cuts each size from the whole."""
        # Backward visits the cuts from the last one made to the first: so gradients are added in the order of `chosen`.
        cuts = {
            index: [normalize_embeddings(column[:, : self.matryoshka_dims[index]]) for column in columns]
            for index in reversed(chosen)
        }
        return reduce(
            torch.add, [self.matryoshka_weights[index] * self.inner(cuts[index], labels, guided) for index in chosen]
        )

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


class EveryLayer(Protocol):
    """The embeddings of each column, (batch, dim), from each layer: those of words first, the last layer last."""

    def __len__(self) -> int: ...

    def __getitem__(self, layer: int, /) -> Sequence[Tensor]: ...


class AdaptiveLayerLoss(LossOver):
    """A loss on the last layer and on others, which are also drawn towards the last.

    With the sampled layers i among those before the last, of weights w, it is the loss of the last layer times
    `last_layer_weight`, plus the mean over i of w(i) times the loss of layer i times `prior_layers_weight`, plus for
    each i the Kullback-Leibler divergence of its embeddings from those of the last layer, both as distributions
    softmax(x / T), times T and `kl_div_weight`. The last layer has no gradient of the divergence. Layer 0 is the
    embeddings of words (Li et al. 2024, https://arxiv.org/abs/2402.14776).

    Args:
        model: not used; accepted because code for the reference passes it.
        loss: any loss over embeddings, but none with a gradient cache.
        n_layers_per_step: use this many layers beside the last in a step, drawn with Python's `random`; -1 for all.
        last_layer_weight: see above.
        prior_layers_weight: see above.
        kl_div_weight: see above.
        kl_temperature: T; 0 for no divergence.
        layer_weighting: w: "uniform" is 1, "log" 1 / (1 + ln(1 + i)), "linear" 1 / (1 + i), or a function of i.

    Raises:
        ConfigError: the loss or an option is not valid.
    """

    layered = True

    def __init__(
        self,
        model: object,
        loss: Loss,
        *,
        n_layers_per_step: int = 1,
        last_layer_weight: float = 1.0,
        prior_layers_weight: float = 1.0,
        kl_div_weight: float = 1.0,
        kl_temperature: float = 0.3,
        layer_weighting: LayerWeighting = "uniform",
    ) -> None:
        super().__init__(loss)
        if self.cached:
            raise ConfigError(
                f"got {_shown(loss)} as loss; {type(self).__name__} expects one without a gradient cache: take the "
                f"plain one"
            )
        check_sampled(n_layers_per_step, "n_layers_per_step", of="layers")
        if not callable(layer_weighting) and layer_weighting not in tuple(_WEIGHTS):
            raise ConfigError(
                f"got layer_weighting={layer_weighting!r}; expected {', '.join(_WEIGHTS)}, or a function of the layer"
            )
        if check_number(kl_temperature, "kl_temperature") < 0:
            raise ConfigError(
                f"got kl_temperature={kl_temperature!r}; expected a number from 0, and 0 for no divergence"
            )
        self.n_layers_per_step = n_layers_per_step
        self.last_layer_weight = check_number(last_layer_weight, "last_layer_weight")
        self.prior_layers_weight = check_number(prior_layers_weight, "prior_layers_weight")
        self.kl_div_weight = check_number(kl_div_weight, "kl_div_weight")
        self.kl_temperature = kl_temperature
        self.layer_weighting = layer_weighting

    def check_model(self, model: nn.Module) -> None:
        """Check that the layers of the model give different embeddings, and that the inner loss goes with it."""
        super().check_model(model)
        if any(isinstance(module, WeightedLayerPooling) and module.used for module in model.children()):
            raise ConfigError(
                f"got a model with WeightedLayerPooling, which makes the same of every layer; {type(self).__name__} "
                f"expects one without: take another loss, or a model whose Pooling follows the Transformer"
            )

    def forward(self, layers: EveryLayer, labels: Tensor | None = None, guided: Sequence[Tensor] = ()) -> Tensor:
        """Return the loss of the embeddings from each layer, and the rest that the inner loss takes, a scalar."""
        name, temperature = type(self).__name__, self.kl_temperature
        if not len(layers):
            raise InputError(f"got no layers; {name} expects the embeddings from at least the last one")
        columns = aligned(layers[len(layers) - 1], loss=name)
        total = self.inner(columns, labels, guided) * self.last_layer_weight
        target = F.softmax(torch.cat(columns) / temperature, dim=-1).detach() if temperature else None
        chosen: Sequence[int] = range(len(layers) - 1)
        if 0 < self.n_layers_per_step < len(chosen):
            chosen = self.drawn(chosen, self.n_layers_per_step)
        for layer in chosen:
            columns = aligned(layers[layer], loss=name)
            value = self.inner(columns, labels, guided)
            total = total + value * self.weight_of(layer) / len(chosen) * self.prior_layers_weight
            if target is not None:
                drawn = F.log_softmax(torch.cat(columns) / temperature, dim=-1)
                total = total + F.kl_div(drawn, target, reduction="batchmean") * temperature * self.kl_div_weight
        return total

    def weight_of(self, layer: int) -> Any:
        """Return the weight of a layer before the last."""
        weighting = self.layer_weighting
        value = _WEIGHTS[weighting](layer) if isinstance(weighting, str) else weighting(layer)
        return _checked_weight(value, layer)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the name of the inner loss, and the options."""
        weighting = self.layer_weighting
        return {
            "loss": type(self.loss).__name__,
            "n_layers_per_step": self.n_layers_per_step,
            "last_layer_weight": self.last_layer_weight,
            "prior_layers_weight": self.prior_layers_weight,
            "kl_div_weight": self.kl_div_weight,
            "kl_temperature": self.kl_temperature,
            "layer_weighting": weighting if isinstance(weighting, str) else function_name(weighting),
        }


def _checked_weight(weight: Any, layer: int) -> Any:
    """Return what a function of the caller gives as weight of a layer: a number, or a tensor of one."""
    one = weight.item() if isinstance(weight, Tensor) and weight.numel() == 1 else weight
    if not is_number(one) or math.isinf(one):
        raise ConfigError(f"got {shown(one)} from layer_weighting for layer {layer}; expected a finite number")
    return weight.reshape(()) if isinstance(weight, Tensor) else float(weight)


class Matryoshka2dLoss(AdaptiveLayerLoss):
    """A loss of several layers and several sizes of an embedding: `AdaptiveLayerLoss` over `MatryoshkaLoss`.

    Args:
        model: the model to train, for the size of its embeddings; None checks sizes in training.
        loss: any loss over embeddings, but none with a gradient cache.
        matryoshka_dims: the sizes.
        matryoshka_weights: the weight of each; 1 by default.
        n_layers_per_step: as in `AdaptiveLayerLoss`.
        n_dims_per_step: as in `MatryoshkaLoss`.
        last_layer_weight: as in `AdaptiveLayerLoss`, like all that follow.
        prior_layers_weight: see there.
        kl_div_weight: see there.
        kl_temperature: see there.
        layer_weighting: see there.

    Raises:
        ConfigError: the loss or an option is not valid.
    """

    def __init__(
        self,
        model: object,
        loss: Loss,
        matryoshka_dims: Sequence[int],
        matryoshka_weights: Sequence[float] | None = None,
        *,
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

    def get_config_dict(self) -> dict[str, Any]:
        """Return the name of the inner loss, and the options of both parts."""
        return {**super().get_config_dict(), **self.loss.get_config_dict()}


def _shown(loss: Loss) -> str:
    inner = loss.loss if isinstance(loss, LossOver) else None
    return type(loss).__name__ if inner is None else f"{type(loss).__name__} of {type(inner).__name__}"
