"""Modules from and to their place in a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..errors import ConfigError, ModelError
from ..storage import dialects
from ..storage.files import write_json
from ..storage.layout import ModuleSpec
from ..storage.weights import load_into, read_weights, write_weights
from .pooling import Pooling
from .sentence import Dense, Dropout, LayerNorm, Normalize
from .transformer import Transformer


def read_module(spec: ModuleSpec) -> nn.Module:
    """Build the module that `spec` describes, weights included.

    Raises:
        ModelError: its files are incomplete or say something impossible.
    """
    if spec.kind == "Transformer":
        return Transformer.load(spec.folder, spec.config)
    try:
        module = _build(spec.kind, spec.config)
    except (KeyError, TypeError, ConfigError) as error:
        raise ModelError(f"{spec.folder / 'config.json'} does not describe a {spec.kind} ({error})") from None
    if module.state_dict():
        load_into(module, read_weights(spec.folder), source=spec.folder)
    return module


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
        write_weights(folder, module.state_dict())


def _build(kind: str, config: dict[str, Any]) -> nn.Module:
    if kind == "Pooling":
        dimension, modes, include_prompt = dialects.read_pooling(config)
        return Pooling(dimension, modes, include_prompt=include_prompt)
    if kind == "Dense":
        return Dense(
            config["in_features"],
            config["out_features"],
            bias=config.get("bias", True),
            activation_function=config.get("activation_function", "torch.nn.modules.activation.Tanh"),
        )
    if kind == "LayerNorm":
        return LayerNorm(config["dimension"])
    if kind == "Dropout":
        return Dropout(config["dropout"])
    return Normalize()


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
        return dict(zip(dialects.DENSE_KEYS, values, strict=True))
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
