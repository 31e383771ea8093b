"""Read modules from their folders in a model, and write them back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError, ModelError, warn
from ..storage import dialects
from ..storage.files import write_json
from ..storage.layout import ModelLayout, ModuleSpec
from ..storage.weights import load_into, read_weights, write_weights
from .pooling import Pooling, WeightedLayerPooling
from .sentence import Dense, Dropout, LayerNorm, Normalize
from .transformer import Transformer

_DENSE_OPTIONS = (*dialects.DENSE_KEYS, *dialects.NORMALIZE_CONFIG, "use_residual")


def _read_pooling(config: Mapping[str, Any]) -> Pooling:
    dimension, modes, include_prompt = dialects.read_pooling(config)
    return Pooling(dimension, modes, include_prompt=include_prompt)


def _read_dense(config: Mapping[str, Any]) -> Dense:
    dialects.check_feature_names("Dense", config)
    return Dense(
        config["in_features"],
        config["out_features"],
        bias=bool(config.get("bias", True)),
        activation_function=config.get("activation_function", dialects.DEFAULT_ACTIVATION),
        use_residual=bool(config.get("use_residual", False)),
    )


def _read_normalize(config: Mapping[str, Any]) -> Normalize:
    dialects.check_feature_names("Normalize", config)
    return Normalize()


def _describe_dense(module: Dense) -> dict[str, Any]:
    linear = module.linear
    values = (linear.in_features, linear.out_features, linear.bias is not None, module.activation_function)
    config: dict[str, Any] = dict(zip(dialects.DENSE_KEYS, values, strict=True))
    return {**config, "use_residual": True} if module.use_residual else config


@dataclass(frozen=True)
class _Format:
    """A module and its config.json.

    Attributes:
        read: builds the module from its configuration, without weights.
        describe: returns the configuration of the module.
        sizes: returns the sizes of the embeddings it takes and gives; None if it keeps any size.
    """

    read: Callable[[Mapping[str, Any]], nn.Module]
    describe: Callable[[Any], dict[str, Any]]
    sizes: Callable[[Any], tuple[int, int]] | None = None


_FORMATS: Mapping[str, _Format] = {
    "Pooling": _Format(
        _read_pooling,
        lambda module: dialects.write_pooling(
            module.embedding_dimension, module.pooling_mode, include_prompt=module.include_prompt
        ),
        lambda module: (module.embedding_dimension, module.output_dimension),
    ),
    "Normalize": _Format(_read_normalize, lambda _: dict(dialects.NORMALIZE_CONFIG)),
    "Dense": _Format(
        _read_dense, _describe_dense, lambda module: (module.linear.in_features, module.linear.out_features)
    ),
    "LayerNorm": _Format(
        lambda config: LayerNorm(config["dimension"]),
        lambda module: {"dimension": module.norm.normalized_shape[0]},
        lambda module: (*module.norm.normalized_shape, *module.norm.normalized_shape),
    ),
    "WeightedLayerPooling": _Format(
        lambda config: WeightedLayerPooling(*dialects.read_weighted_pooling(config)),
        lambda module: {
            "embedding_dimension": module.embedding_dimension,
            "layer_start": module.layer_start,
            "num_hidden_layers": module.num_hidden_layers,
        },
        lambda module: (module.embedding_dimension, module.embedding_dimension),
    ),
    "Dropout": _Format(lambda config: Dropout(config.get("dropout", 0.2)), lambda module: {"dropout": module.dropout}),
}


def read_modules(layout: ModelLayout) -> list[nn.Module]:
    """Build the modules of a folder and load their weights, all in the dtype of the transformer.

    Raises:
        ModelError: files are incomplete, say something impossible, or do not belong together.
    """
    modules: list[nn.Module] = []
    for spec in layout.modules:
        modules.append(read_module(spec))
    transformer = modules[0]
    if not isinstance(transformer, Transformer):
        raise ModelError(f"the first module is a {type(transformer).__name__}; expected a Transformer")
    if layout.pooling is not None:
        warn(layout.note)
        modules.append(Pooling(transformer.embedding_dimension, layout.pooling))
    _check_sizes(modules, transformer.embedding_dimension, layout)
    for index, module in enumerate(modules):
        if not isinstance(module, WeightedLayerPooling):
            continue
        if any(isinstance(earlier, Pooling) for earlier in modules[:index]):
            module.used = False
            warn(
                f"{layout.modules[index].folder}: its WeightedLayerPooling comes after the Pooling and has no effect, "
                f"as in the reference"
            )
        elif transformer.config.get("output_hidden_states") is not True:
            module.used = False
            warn(
                f"{layout.modules[0].folder / 'config.json'} does not ask for output_hidden_states: its "
                f"WeightedLayerPooling has no effect, as in the reference"
            )
    dtype = next(transformer.parameters()).dtype
    for module in modules:
        module.to(dtype)
    return modules


def write_module(module: nn.Module, folder: Path) -> None:
    """Write a module's configuration and weights."""
    if isinstance(module, Transformer):
        module.save(folder)
        return
    write_json(folder / "config.json", module_config(module), indent=4)
    if module.state_dict():
        write_weights(folder, module.state_dict(), labelled=False)


def module_config(module: nn.Module) -> dict[str, Any]:
    """Return the content of the config.json of a module after the first."""
    return _FORMATS[type(module).__name__].describe(module)


def read_module(spec: ModuleSpec) -> nn.Module:
    """Build a module and load its weights.

    Raises:
        ModelError: files are incomplete, say something impossible, or do not belong together.
    """
    if spec.kind == "Transformer":
        return Transformer.load(spec.folder, spec.config)
    if spec.kind == "StaticEmbedding":
        from .static import StaticEmbedding  # which few models have

        return StaticEmbedding.load(spec.folder, spec.config)
    try:
        with torch.device("meta"):  # no memory is taken for a size before the weights turn out to have it
            module = _FORMATS[spec.kind].read(spec.config)
    except (KeyError, TypeError, RuntimeError, ConfigError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ModelError(f"{spec.folder / 'config.json'} does not describe a {spec.kind} ({reason})") from None
    if spec.kind == "Dense" and (unknown := sorted(set(spec.config) - set(_DENSE_OPTIONS))):
        known = ", ".join(_DENSE_OPTIONS)
        warn(f"Dense config.json: {', '.join(unknown)} left out; known are {known}")
    if module.state_dict():
        tensors = read_weights(spec.folder)
        if surplus := sorted(set(tensors) - set(module.state_dict())):
            raise ModelError(
                f"the weights in {spec.folder} hold {surplus[0]}, which the {spec.kind} of its config.json lacks"
            )
        load_into(module, tensors, source=spec.folder)
    if isinstance(module, WeightedLayerPooling):
        try:
            module.check_weights()
        except ConfigError as error:
            raise ModelError(f"{spec.folder}: {error}") from None
    return module


def misfit(modules: Sequence[nn.Module], token_size: int) -> tuple[int, str] | None:
    """Find the first module that does not take the size of embeddings that the one before it gives.

    Returns:
        Its index, and what it takes and should take, for a message; None if all fit.
    """
    size: int | None = token_size  # also of the embeddings of a static model
    for index, module in enumerate(modules[1:], start=1):
        kind = type(module).__name__
        if kind not in _FORMATS:  # of the caller, who knows its size
            size = None
            continue
        sizes = _FORMATS[kind].sizes
        if sizes is None:
            continue
        expected = token_size if kind in ("Pooling", "WeightedLayerPooling") else size
        taken, size = sizes(module)
        if expected not in (None, taken):
            return index, f"{kind} takes {taken} values; expected {expected}, the output of the module before it"
    return None


def _check_sizes(modules: list[nn.Module], token_size: int, layout: ModelLayout) -> None:
    """Raise ModelError unless each module takes the size of embeddings that the one before it gives."""
    found = misfit(modules, token_size)
    if found is not None:
        index, problem = found
        raise ModelError(f"{layout.modules[index].folder / 'config.json'}: its {problem}: copy the whole model again")
