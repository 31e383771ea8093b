"""LoRA: trainable low-rank changes of linear layers whose own weights are frozen (Hu et al. 2021).

A linear layer with weight W computes x W^T + scale * dropout(x) A^T B^T. A is drawn and B is zero, so that a new
adapter changes nothing. Layers are named as in checkpoints, and settings and files are those of PEFT.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, ModelError, nearest, shown
from .architectures import checkpoint_names
from .encoder import Encoder
from .layers import Linear

_POOLER = "pooler.dense"  # in the checkpoints of BERT, RoBERTa and MPNet, and not in our encoder
_ALL = "all-linear"  # PEFT's word for every linear layer
_DEFAULT = ("attention.query", "attention.value")  # as in the paper; our names
_LARGEST_RANK = 1 << 16


@dataclass(frozen=True)
class LoraConfig:
    """Settings of a LoRA adapter, by the names and with the defaults of PEFT.

    Attributes:
        r: rank of the change, at least 1.
        lora_alpha: the change is multiplied by lora_alpha / r.
        lora_dropout: probability of dropping an element of the adapter's input in training, below 1.
        target_modules: the linear layers to change, by their names in checkpoints: a list of names or of their last
            parts, such as ["query", "value"]; a regular expression for whole names; or "all-linear". By default those
            of queries and values.
        bias: "none", since the biases of the base are frozen.
        use_rslora: multiply by lora_alpha / sqrt(r), for rank-stabilized LoRA.

    Raises:
        ConfigError: an impossible value.
    """

    r: int = 8
    lora_alpha: float = 8
    lora_dropout: float = 0.0
    target_modules: str | Sequence[str] | None = None
    bias: str = "none"
    use_rslora: bool = False

    def __post_init__(self) -> None:
        if type(self.r) is not int or not 1 <= self.r <= _LARGEST_RANK:
            raise ConfigError(f"got r={shown(self.r)}; expected a rank from 1 to {_LARGEST_RANK}, such as 8")
        if not _is_number(self.lora_alpha) or not 0 < self.lora_alpha <= 1e30:
            raise ConfigError(f"got lora_alpha={shown(self.lora_alpha)}; expected a number above 0, such as 16")
        if not _is_number(self.lora_dropout) or not 0 <= self.lora_dropout < 1:
            raise ConfigError(f"got lora_dropout={shown(self.lora_dropout)}; expected a number from 0 to below 1")
        if self.bias != "none":
            raise ConfigError(f"got bias={shown(self.bias)}; expected 'none': biases of the base are not trained")
        if not isinstance(self.use_rslora, bool):
            raise ConfigError(f"got use_rslora={shown(self.use_rslora)}; expected True or False")
        targets = self.target_modules
        if isinstance(targets, str):
            try:
                re.compile(targets)
            except re.error as error:
                raise ConfigError(
                    f"got target_modules={shown(targets)} ({error}); expected a regular expression, or a list of names"
                ) from None
        elif targets is not None:
            names = list(targets) if isinstance(targets, Iterable) else []
            if not names or not all(isinstance(name, str) and name for name in names):
                raise ConfigError(
                    f"got target_modules={shown(targets)}; expected a list of names such as ['query', 'value'], a "
                    f"regular expression, or None"
                )
            object.__setattr__(self, "target_modules", tuple(names))

    @property
    def scale(self) -> float:
        """Factor of the change."""
        return float(self.lora_alpha) / (math.sqrt(self.r) if self.use_rslora else self.r)

    def as_json(self, layers: Sequence[str]) -> dict[str, Any]:
        """Return the settings as adapter_config.json has them.

        Args:
            layers: that are changed, by their names in checkpoints. They are listed where PEFT would also change the
                pooler, which embeddings do not need.
        """
        targets: Any = self.target_modules
        if targets is None:
            targets = list(dict.fromkeys(name.rpartition(".")[2] for name in layers))
        elif isinstance(targets, str):
            targets = list(layers) if targets == _ALL or re.fullmatch(targets, _POOLER) else targets
        else:
            targets = list(layers) if any(f".{_POOLER}".endswith(f".{name}") for name in targets) else list(targets)
        return {**asdict(self), "target_modules": targets}


class LoraLinear(nn.Linear):
    """A linear layer with frozen weights, and the matrices of its change.

    Args:
        base: the layer; its weights are shared, not copied.
        config: of the adapter.

    Attributes:
        lora_A: (r, in).
        lora_B: (out, r).
    """

    def __init__(self, base: nn.Linear, config: LoraConfig) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.lora_A = nn.Parameter(base.weight.new_empty(config.r, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, config.r))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.dropout, self.scale = float(config.lora_dropout), config.scale
        self.train(base.training)

    def reset_parameters(self) -> None:
        """Draw nothing: the weights are those of the base."""

    def forward(self, x: Tensor) -> Tensor:
        """(tokens, in) to (tokens, out)."""
        low = F.linear(F.dropout(x, self.dropout, self.training), self.lora_A)  # (tokens, r)
        return F.linear(x, self.weight, self.bias) + F.linear(low, self.lora_B) * self.scale

    def merged(self) -> Linear:
        """Add the change to the weight, in place and in float32, and return a plain layer with it."""
        with torch.no_grad():
            change = self.lora_B.float() @ self.lora_A.float() * self.scale
            self.weight.copy_(self.weight.float() + change)
        plain = Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        plain.weight, plain.bias = self.weight, self.bias
        return plain.train(self.training)


def target_layers(encoder: Encoder, model: Mapping[str, Any], config: LoraConfig) -> dict[str, str]:
    """Choose the linear layers that an adapter changes: our names to those of checkpoints.

    Args:
        encoder: the base.
        model: its Hugging Face configuration.
        config: of the adapter.

    Raises:
        ConfigError: a name or expression matches no linear layer.
    """
    linears = linear_layers(encoder, model)
    wanted = config.target_modules
    if wanted is None:
        return {ours: theirs for ours, theirs in linears.items() if ours.endswith(_DEFAULT)}
    if wanted == _ALL:
        return linears
    chosen: set[str] = set()
    for target in (wanted,) if isinstance(wanted, str) else wanted:
        if isinstance(wanted, str):
            found = {name for name in linears.values() if re.fullmatch(target, name)}
        else:
            found = {name for name in linears.values() if f".{name}".endswith(f".{target}")}
        if not found:
            raise ConfigError(_no_layer(target, linears.values(), listed=not isinstance(wanted, str)))
        chosen |= found
    return {ours: theirs for ours, theirs in linears.items() if theirs in chosen}


def linear_layers(encoder: Encoder, model: Mapping[str, Any]) -> dict[str, str]:
    """Return the linear layers of an encoder: our names to those of checkpoints."""
    ours = [f"{name}.weight" for name, module in encoder.named_modules() if isinstance(module, nn.Linear)]
    names = checkpoint_names(model, ours)
    return {name.removesuffix(".weight"): names[name].removesuffix(".weight") for name in ours}


def put_adapter(encoder: Encoder, layers: Iterable[str], config: LoraConfig) -> None:
    """Freeze an encoder, and put an adapter on layers of it, by our names."""
    encoder.requires_grad_(False)
    for name in layers:
        _replace(encoder, name, LoraLinear(_linear(encoder, name), config))


def merge_layers(encoder: Encoder) -> None:
    """Add the changes of an adapter to the weights, and make all weights trainable again."""
    for name, layer in adapted_layers(encoder).items():
        _replace(encoder, name, layer.merged())
    encoder.requires_grad_(True)


def adapted_layers(encoder: nn.Module) -> dict[str, LoraLinear]:
    """Return the layers with an adapter, by our names."""
    return {name: module for name, module in encoder.named_modules() if isinstance(module, LoraLinear)}


def matrix_names(layers: Mapping[str, str]) -> dict[str, str]:
    """Names of an adapter's matrices: ours to PEFT's.

    Args:
        layers: our names of layers to those of checkpoints.
    """
    return {
        f"{ours}.lora_{matrix}": f"base_model.model.{theirs}.lora_{matrix}.weight"
        for ours, theirs in layers.items()
        for matrix in "AB"
    }


def read_settings(
    saved: Mapping[str, Any], tensors: Mapping[str, Tensor], encoder: Encoder, linears: Mapping[str, str], folder: Path
) -> tuple[LoraConfig, dict[str, str], dict[str, Tensor]]:
    """Find out what a saved adapter changes.

    Args:
        saved: content of adapter_config.json.
        tensors: of the adapter, by PEFT's names, which wrappers may have given prefixes.
        encoder: the base.
        linears: its layers, our names to those of checkpoints.
        folder: of the adapter, for messages.

    Returns:
        The settings, the layers that are changed, and the matrices by our names.

    Raises:
        ModelError: the settings are impossible, or the tensors do not fit the encoder.
    """
    names = LoraConfig.__dataclass_fields__
    try:
        config = LoraConfig(**{name: saved[name] for name in names if saved.get(name) is not None})
    except ConfigError as error:
        raise ModelError(f"{folder / 'adapter_config.json'}: {error}") from None
    layers: dict[str, str] = {}
    matrices: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        module, _, matrix = name.removesuffix(".weight").rpartition(".lora_")
        ours = next((ours for ours, theirs in linears.items() if f".{module}".endswith(f".{theirs}")), None)
        if ours is None or matrix not in ("A", "B") or f"{ours}.lora_{matrix}" in matrices:
            raise ModelError(
                f"the adapter in {folder} changes {name}; expected one pair of matrices for each of some linear "
                f"layers of this model: load base and adapter merged, or choose the base it was trained on"
            )
        base = _linear(encoder, ours)
        shape = (config.r, base.in_features) if matrix == "A" else (base.out_features, config.r)
        if tuple(tensor.shape) != shape or not tensor.is_floating_point():
            raise ModelError(
                f"the adapter in {folder} has {tuple(tensor.shape)} {tensor.dtype} in {name}; expected floats of "
                f"shape {shape}: choose the base it was trained on"
            )
        layers[ours] = linears[ours]
        matrices[f"{ours}.lora_{matrix}"] = tensor.to(base.weight.dtype)
    if not layers or len(matrices) != 2 * len(layers):
        raise ModelError(f"the adapter in {folder} has {len(matrices)} matrices; expected pairs: copy it again")
    return config, layers, matrices


def trains_base(encoder: nn.Module) -> bool:
    """Return True if weights of an encoder beside those of its adapter are not frozen."""
    return any(value.requires_grad and not is_adapter(name) for name, value in encoder.named_parameters())


def is_adapter(name: str) -> bool:
    """Return True if the tensor of a model's state belongs to an adapter."""
    return name.endswith((".lora_A", ".lora_B"))


def _linear(encoder: Encoder, name: str) -> nn.Linear:
    module = encoder.get_submodule(name)
    if not isinstance(module, nn.Linear):
        raise ConfigError(f"got {name}, a {type(module).__name__}; expected a linear layer with float weights")
    return module


def _replace(encoder: Encoder, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(encoder.get_submodule(parent), child, module)


def _no_layer(target: str, names: Iterable[str], *, listed: bool) -> str:
    every = list(names)
    known = list(dict.fromkeys([*(name.rpartition(".")[2] for name in every), *every]))
    if not listed and target in known:
        return f"got target_modules={target!r}, an expression for whole names; expected a list: pass [{target!r}]"
    return (
        f"got {target!r} in target_modules, which is the name of no linear layer of this model; expected a name such "
        f"as {nearest(target, known, otherwise=known)}"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
