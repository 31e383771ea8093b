"""Losses by the names and parameters that model cards print."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from torch import nn

from ..errors import ConfigError, shown
from ..similarity import (
    cos_sim,
    dot_score,
    euclidean_sim,
    manhattan_sim,
    pairwise_angle_sim,
    pairwise_cos_sim,
    pairwise_dot_score,
    pairwise_euclidean_sim,
    pairwise_manhattan_sim,
)
from .base import Loss, LossOver, dimension_of
from .cached import (
    CachedGISTEmbedLoss,
    CachedMultipleNegativesRankingLoss,
    CachedMultipleNegativesSymmetricRankingLoss,
)
from .classification import SoftmaxLoss
from .contrastive_tension import ContrastiveTensionLoss, ContrastiveTensionLossInBatchNegatives
from .cosine import CosineSimilarityLoss, full_name
from .denoising import DenoisingAutoEncoderLoss
from .distances import BatchHardTripletLossDistanceFunction, SiameseDistanceMetric, TripletDistanceMetric, named
from .distillation import DistillKLDivLoss, EmbeddingDistance, EmbedDistillLoss, MarginMSELoss, MSELoss
from .guided import GISTEmbedLoss, MarginStrategy
from .matryoshka import AdaptiveLayerLoss, Matryoshka2dLoss, MatryoshkaLoss
from .pairs import ContrastiveLoss, OnlineContrastiveLoss
from .ranking import (
    HardnessMode,
    MegaBatchMarginLoss,
    MultipleNegativesRankingLoss,
    MultipleNegativesSymmetricRankingLoss,
    PartitionMode,
)
from .regularization import GlobalOrthogonalRegularizationLoss
from .scores import AnglELoss, CoSENTLoss
from .triplets import (
    BatchAllTripletLoss,
    BatchHardSoftMarginTripletLoss,
    BatchHardTripletLoss,
    BatchSemiHardTripletLoss,
    TripletLoss,
)

Read: TypeAlias = Callable[[str, Any], Any]  # from name and value of a parameter in a card to that of the constructor

# ---- parameters -----------------------------------------------------------------------------------------------------


def _one_of(choices: Mapping[str, Any]) -> Read:
    def read(name: str, value: Any) -> Any:
        if value not in tuple(choices):
            raise ConfigError(f"got {name}={value!r}; expected one of {', '.join(choices)}")
        return choices[value]

    return read


def _number(name: str, value: Any) -> Any:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        wanted = "a number above 0" if name == "scale" else "a number"
        raise ConfigError(f"got {name}={value!r}; expected {wanted}")
    return value


def _whole(name: str, value: Any) -> Any:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"got {name}={value!r}; expected a whole number")
    return value


def _flag(name: str, value: Any) -> Any:
    if not isinstance(value, bool):
        raise ConfigError(f"got {name}={value!r}; expected true or false")
    return value


def _or_none(read: Read) -> Read:
    return lambda name, value: None if value is None else read(name, value)


def _list_of(read: Read) -> Read:
    def read_list(name: str, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"got {name}={value!r}; expected a list")
        return [read(name, one) for one in value]

    return read_list


def _module_of(*types: type[nn.Module]) -> Read:
    """Read the full name of a module; the first of `types` is the loss's default, given as None.

    Nothing is imported.
    """
    by_name = {full_name(one): one for one in types}
    choose = _one_of(by_name)
    return lambda name, value: None if (one := choose(name, value)) is types[0] else one()


def _choice(alias: Any) -> Read:
    return _one_of({name: name for name in get_args(alias)})


def _text(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        raise ConfigError(f"got {name}={value!r}; expected a name")
    return value


def _inner(name: str, value: Any) -> Any:
    """Read a loss inside another one: its name, or a dict of its name to its parameters."""
    one = isinstance(value, Mapping) and len(value) == 1 and isinstance(next(iter(value.values())), Mapping)
    if not one and not isinstance(value, str):
        raise ConfigError(f"got {name}={shown(value)}; expected a name, or a dict of one to its parameters")
    return value


def _model(name: str, value: Any) -> Any:
    if not isinstance(value, nn.Module):
        raise ConfigError(
            f"got {name}={value!r}; expected a model, which cards do not name: pass a SentenceTransformer"
        )
    return value


def _functions(*functions: Callable[..., Any]) -> Read:
    return _one_of({function.__name__: function for function in functions})


_MATRIX = _functions(cos_sim, dot_score, euclidean_sim, manhattan_sim)
_PAIRWISE = _functions(
    pairwise_cos_sim, pairwise_dot_score, pairwise_euclidean_sim, pairwise_manhattan_sim, pairwise_angle_sim
)
_SIAMESE = _one_of(named(SiameseDistanceMetric))
_IN_BATCH = _one_of(named(BatchHardTripletLossDistanceFunction))
_RANKING = {"scale": _number, "similarity_fct": _MATRIX, "gather_across_devices": _flag}
_ANY_RANKING: Mapping[str, Read] = {
    **_RANKING,
    "directions": _list_of(_text),
    "partition_mode": _choice(PartitionMode),
    "hardness_mode": _or_none(_choice(HardnessMode)),
    "hardness_strength": _number,
}
_GUIDED: Mapping[str, Read] = {
    "guide": _model,
    "temperature": _number,
    "margin_strategy": _choice(MarginStrategy),
    "margin": _number,
    "contrast_anchors": _flag,
    "contrast_positives": _flag,
    "gather_across_devices": _flag,
}
_MATRYOSHKA: Mapping[str, Read] = {
    "loss": _inner,
    "matryoshka_dims": _list_of(_whole),
    "matryoshka_weights": _list_of(_number),
    "n_dims_per_step": _whole,
}
_LAYERS: Mapping[str, Read] = {
    "loss": _inner,
    "n_layers_per_step": _whole,
    "last_layer_weight": _number,
    "prior_layers_weight": _number,
    "kl_div_weight": _number,
    "kl_temperature": _number,
    "layer_weighting": _one_of({name: name for name in ("uniform", "log", "linear")}),
}
_SIZES: Mapping[str, Read] = {"mini_batch_size": _whole, "mini_batch_num_tokens": _or_none(_whole)}

# ---- losses ---------------------------------------------------------------------------------------------------------

# Each loss with the parameters that its constructor takes and its card prints. A card may print others, which follow
# from these or are fixed; they are compared with what the loss made of these prints.
_LOSSES: dict[type[Loss], Mapping[str, Read]] = {
    CosineSimilarityLoss: {
        "loss_fct": _module_of(nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss),
        "cos_score_transformation": _module_of(nn.Identity, nn.Sigmoid, nn.Tanh, nn.ReLU),
    },
    CoSENTLoss: {"scale": _number, "similarity_fct": _PAIRWISE},
    AnglELoss: {"scale": _number},
    MultipleNegativesRankingLoss: _ANY_RANKING,
    MultipleNegativesSymmetricRankingLoss: _RANKING,
    CachedMultipleNegativesRankingLoss: {**_ANY_RANKING, **_SIZES},
    CachedMultipleNegativesSymmetricRankingLoss: {**_RANKING, **_SIZES},
    MegaBatchMarginLoss: {"positive_margin": _number, "negative_margin": _number, **_SIZES},
    ContrastiveLoss: {"distance_metric": _SIAMESE, "margin": _number, "size_average": _flag},
    OnlineContrastiveLoss: {"distance_metric": _SIAMESE, "margin": _number},
    TripletLoss: {"distance_metric": _one_of(named(TripletDistanceMetric)), "triplet_margin": _number},
    BatchAllTripletLoss: {"distance_metric": _IN_BATCH, "margin": _number},
    BatchHardTripletLoss: {"distance_metric": _IN_BATCH, "margin": _number},
    BatchHardSoftMarginTripletLoss: {"distance_metric": _IN_BATCH},
    BatchSemiHardTripletLoss: {"distance_metric": _IN_BATCH, "margin": _number},
    MSELoss: {"projection_dim": _or_none(_whole)},
    EmbedDistillLoss: {"distance_metric": _choice(EmbeddingDistance), "projection_dim": _or_none(_whole)},
    MarginMSELoss: {"similarity_fct": _PAIRWISE},
    DistillKLDivLoss: {
        "similarity_fct": _PAIRWISE,
        "temperature": _number,
        "student_temperature": _number,
        "teacher_temperature": _number,
    },
    SoftmaxLoss: {
        "num_labels": _whole,
        "concatenation_sent_rep": _flag,
        "concatenation_sent_difference": _flag,
        "concatenation_sent_multiplication": _flag,
    },
    GlobalOrthogonalRegularizationLoss: {
        "similarity_fct": _MATRIX,
        "mean_weight": _or_none(_number),
        "second_moment_weight": _or_none(_number),
        "aggregation": _choice(Literal["mean", "sum"]),
    },
    ContrastiveTensionLoss: {},
    DenoisingAutoEncoderLoss: {"decoder_name_or_path": _or_none(_text), "tie_encoder_decoder": _flag},
    ContrastiveTensionLossInBatchNegatives: {"scale": _number, "similarity_fct": _MATRIX},
    GISTEmbedLoss: _GUIDED,
    CachedGISTEmbedLoss: {**_GUIDED, **_SIZES},
    MatryoshkaLoss: _MATRYOSHKA,
    AdaptiveLayerLoss: _LAYERS,
    Matryoshka2dLoss: {**_LAYERS, **_MATRYOSHKA},
}
_OF_A_MODEL = (  # with layers of the size of its embeddings, a copy or a decoder
    SoftmaxLoss,
    ContrastiveTensionLoss,
    ContrastiveTensionLossInBatchNegatives,
    DenoisingAutoEncoderLoss,
)
_BY_NAME = {kind.__name__: kind for kind in _LOSSES}


def loss_names() -> Sequence[str]:
    """Return the class names of all losses."""
    return tuple(_BY_NAME)


def loss_class(name: str) -> type[Loss]:
    """Return the class of a loss.

    Raises:
        ConfigError: there is no such loss.
    """
    if name not in tuple(_BY_NAME):
        raise ConfigError(f"got the loss {name}; expected one of {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def needs_model(name: str, parameters: Mapping[str, Any] | None = None) -> bool:
    """Return True if `loss_by_name` needs the model: for a layer of the size of its embeddings, a copy or a decoder."""
    given = parameters or {}
    if issubclass(loss_class(name), LossOver) and "loss" in given:
        return needs_model(*_of_inner(name, given))
    return loss_class(name) in _OF_A_MODEL or given.get("projection_dim") is not None


def with_classes(name: str, parameters: Mapping[str, Any], labels: Sequence[float] | None) -> dict[str, Any]:
    """Return the parameters of a loss, with the number of classes of the labels if it needs one and has none."""
    kind, inner = loss_class(name), name
    if issubclass(kind, LossOver) and isinstance(parameters.get("loss"), str):
        inner = parameters["loss"]
    counted: dict[str, int] = {}
    if loss_class(inner) is SoftmaxLoss and labels is not None and len(labels):
        counted = {"num_labels": int(np.max(labels)) + 1}
    return {**counted, **parameters}


def _of_inner(name: str, parameters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name of the loss inside another one, and its parameters.

    Args:
        name: of the outer loss.
        parameters: of the outer loss, "loss" among them. Those that only the inner one has are of the inner one.
    """
    value = _inner("loss", parameters["loss"])
    inner, own = (value, {}) if isinstance(value, str) else next(iter(value.items()))
    known = _LOSSES[loss_class(inner)].keys() - _LOSSES[loss_class(name)].keys()
    return inner, {**{key: one for key, one in parameters.items() if key in known}, **own}


def loss_by_name(name: str, parameters: Mapping[str, Any] | None = None, *, model: object = None) -> Loss:
    """Make a loss.

    Args:
        name: its class name.
        parameters: as returned by `Loss.get_config_dict`, and as printed in the reference's cards; those left out
            have their defaults. A loss inside another one is a name, which cards print, and takes those parameters
            that only it has; or a dict of the name to its parameters, such as {"MatryoshkaLoss": {"loss":
            "CoSENTLoss", "matryoshka_dims": [256, 64]}}.
        model: the model to train, for the losses with layers of their own.

    Raises:
        ConfigError: there is no such loss, or it has no such parameter or value, or it needs a model.
    """
    kind, given = loss_class(name), dict(parameters or {})
    inner: Loss | None = None
    if issubclass(kind, LossOver) and "loss" in given:
        inner_name, own = _of_inner(name, given)
        inner = loss_by_name(inner_name, own, model=model)
        mine = {key: value for key, value in given.items() if key in _LOSSES[kind] or key not in own}
        given = {**mine, "loss": inner_name}
    options = {key: read(key, given[key]) for key, read in _LOSSES[kind].items() if key in given}
    if kind is SoftmaxLoss:
        options["embedding_dimension"] = dimension_of(model, name)
    if inner is not None:
        options["loss"] = inner
    for option in inspect.signature(kind).parameters.values():
        if option.default is option.empty and option.name not in ("model", *options):
            raise ConfigError(
                f"got no {option.name} for {name}; expected it among the parameters: add it, or --loss-option "
                f"{option.name}=VALUE"
            )
    loss = kind(model, **options)
    config = loss.get_config_dict()
    for key, value in given.items():
        if key not in config or not _same(config[key], value):
            expected = f"one of its parameters: {', '.join(config) or 'it has none'}"
            if key in config:
                expected = f"{_plain(config[key])!r}: minisbert supports no other"
            raise ConfigError(f"got {key}={value!r} for {name}; expected {expected}")
    return loss


def _same(got: Any, stated: Any) -> bool:
    if isinstance(got, float) and isinstance(stated, float):
        return math.isclose(got, stated, rel_tol=1e-6)  # one that is trained is kept in float32
    return bool(_plain(got) == _plain(stated))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
