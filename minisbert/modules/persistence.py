"""Modules from and to their place in a model folder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError, ModelError
from ..storage import dialects
from ..storage.files import write_json
from ..storage.layout import ModelLayout, ModuleSpec
from ..storage.weights import load_into, read_weights, write_weights
from .pooling import Pooling
from .sentence import Dense, Dropout, LayerNorm, Normalize
from .transformer import Transformer


def read_modules(layout: ModelLayout) -> list[nn.Module]:
    """Build the modules of a folder, weights included, all in the number type of the transformer.

    Raises:
        ModelError: files are incomplete, say something impossible, or do not fit each other.
    """
    modules = [_read_module(spec) for spec in layout.modules]
    transformer = modules[0]
    if not isinstance(transformer, Transformer):
        raise ModelError(f"the first module is a {type(transformer).__name__}; expected a Transformer")
    if layout.pooling is not None:
        warnings.warn(layout.note, stacklevel=5)
        modules.append(Pooling(transformer.embedding_dimension, layout.pooling))
    _check_widths(modules, transformer.embedding_dimension, layout)
    dtype = next(transformer.parameters()).dtype
    for module in modules:
        module.to(dtype)
    return modules


def write_module(module: nn.Module, folder: Path) -> None:
    """Write a module's configuration and weights.

    Raises:
        ConfigError: the module is not one that the format knows.
    """
    if isinstance(module, Transformer):
        module.save(folder)
        return
    write_json(folder / "config.json", _describe(module), indent=4)
    if module.state_dict():
        write_weights(folder, module.state_dict(), labelled=False)


def _read_module(spec: ModuleSpec) -> nn.Module:
    if spec.kind == "Transformer":
        return Transformer.load(spec.folder, spec.config)
    try:
        with torch.device("meta"):  # sizes are only taken for true, and memory for them, when the weights have them
            module = _build(spec.kind, spec.config)
    except (KeyError, TypeError, RuntimeError, ConfigError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ModelError(f"{spec.folder / 'config.json'} does not describe a {spec.kind} ({reason})") from None
    if module.state_dict():
        tensors = read_weights(spec.folder)
        surplus = sorted(set(tensors) - set(module.state_dict()))
        if surplus:
            raise ModelError(
                f"the weights in {spec.folder} hold {surplus[0]}, which the {spec.kind} of its config.json has not"
            )
        load_into(module, tensors, source=spec.folder)
    return module


def _build(kind: str, config: dict[str, Any]) -> nn.Module:
    if kind == "Pooling":
        dimension, modes, include_prompt = dialects.read_pooling(config)
        return Pooling(dimension, modes, include_prompt=include_prompt)
    if kind == "Dense":
        return _dense(config)
    if kind == "LayerNorm":
        return LayerNorm(config["dimension"])
    if kind == "Dropout":
        return Dropout(config.get("dropout", 0.2))
    dialects.check_feature_names(kind, config)
    return Normalize()


def _dense(config: dict[str, Any]) -> Dense:
    dialects.check_feature_names("Dense", config)
    known = (*dialects.DENSE_KEYS, *dialects.NORMALIZE_CONFIG, "use_residual")
    unknown = sorted(set(config) - set(known))
    if unknown:
        warnings.warn(f"Dense config.json: {', '.join(unknown)} left out; known are {', '.join(known)}", stacklevel=8)
    return Dense(
        config["in_features"],
        config["out_features"],
        bias=bool(config.get("bias", True)),
        activation_function=config.get("activation_function", dialects.DEFAULT_ACTIVATION),
        use_residual=bool(config.get("use_residual", False)),
    )


def _check_widths(modules: list[nn.Module], token_width: int, layout: ModelLayout) -> None:
    """Make sure that each module takes what the one before it gives."""
    width = token_width
    for index, module in enumerate(modules):
        taken, given = width, width
        if isinstance(module, Pooling):
            width, taken, given = token_width, module.embedding_dimension, module.output_dimension
        elif isinstance(module, Dense):
            taken, given = module.linear.in_features, module.linear.out_features
        elif isinstance(module, LayerNorm):
            taken = module.norm.normalized_shape[0]
        if taken != width:
            raise ModelError(
                f"{layout.modules[index].folder / 'config.json'}: its {type(module).__name__} takes {taken} values; "
                f"expected {width}, what the module before it gives"
            )
        width = given


def _describe(module: nn.Module) -> dict[str, Any]:
    if isinstance(module, Pooling):
        return dialects.write_pooling(
            module.embedding_dimension, module.pooling_mode, include_prompt=module.include_prompt
        )
    if isinstance(module, Dense):
        values = (
            module.linear.in_features,
            module.linear.out_features,
            module.linear.bias is not None,
            module.activation_function,
        )
        config: dict[str, Any] = dict(zip(dialects.DENSE_KEYS, values, strict=True))
        return {**config, "use_residual": True} if module.use_residual else config
    if isinstance(module, LayerNorm):
        return {"dimension": module.norm.normalized_shape[0]}
    if isinstance(module, Dropout):
        return {"dropout": module.dropout}
    if isinstance(module, Normalize):
        return dict(dialects.NORMALIZE_CONFIG)
    raise ConfigError(
        f"got a module of type {type(module).__name__}; a saved model can hold Transformer, Pooling, Normalize, Dense, "
        f"LayerNorm and Dropout"
    )
