"""LoRA adapters of PEFT beside the weights they were trained on, merged into these.

A weight W becomes W + scale * B @ A, with the scale lora_alpha / r, or lora_alpha / sqrt(r) for rank-stabilized LoRA.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from .dialects import is_count, unusable
from .files import is_file, read_json_object

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_MATRICES = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<matrix>[AB])(\.weight)?")
_NAME = re.compile(r"[\w.]+")
# Ways to start the matrices that also change the weights, so that the weights beside the adapter are not its base.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_LARGEST_ALPHA = 1e30


def merge_adapter(weights: dict[str, Tensor], adapter: Mapping[str, Tensor], folder: Path) -> None:
    """Merge the tensors of an adapter into `weights`, by name and in place.

    Args:
        weights: of the base, float.
        adapter: the content of the adapter's own file.
        folder: holds adapter_config.json.

    Raises:
        ModelError: the adapter is of another kind than LoRA, or does not fit the weights.
    """
    config = read_json_object(folder / ADAPTER_CONFIG)
    check_kind(config, folder)
    if not adapter:
        raise ModelError(f"the adapter in {folder} has no tensors; expected those of LoRA: copy it again")
    matrices: dict[tuple[str, bool], dict[str, Tensor]] = {}
    sources: dict[str, str] = {}  # of what is changed
    for name, tensor in adapter.items():
        check_numbers(name, tensor, folder)
        if found := _MATRICES.fullmatch(name):
            module, embedding = found["module"], bool(found["embedding"])
            pair = matrices.setdefault((module, embedding), {})
            if found["matrix"] in pair or (module, not embedding) in matrices:
                raise ModelError(f"the adapter in {folder} changes {module} twice; expected one pair: copy it again")
            pair[found["matrix"]] = tensor
        elif ".lora_" in name or ".token_adapter." in name:
            raise ModelError(f"the adapter in {folder} has {name}, which LoRA does not have: merge it with PEFT")
        else:  # trained as a whole: a bias, or a module of modules_to_save
            target = _target(name, weights, sources, folder)
            _check_shape(tuple(tensor.shape), weights[target], name, folder)
            weights[target] = tensor.to(weights[target].dtype)
    for (module, embedding), pair in matrices.items():
        target = _target(f"{module}.weight", weights, sources, folder)
        first, second = pair.get("A"), pair.get("B")
        if (
            first is None
            or second is None
            or first.ndim != 2
            or second.ndim != 2
            or not len(first) == second.shape[1] > 0
        ):
            raise ModelError(f"the adapter in {folder} has no two matrices for {module} that fit: copy it again")
        transposed = embedding or bool(config.get("fan_in_fan_out"))
        shape = (len(second), first.shape[1])
        weight = weights[target]
        _check_shape(shape[::-1] if transposed else shape, weight, module, folder)  # before memory is taken for it
        change = second.float() @ first.float() * _scale(config, module, len(first), folder)
        weights[target] = (weight.float() + (change.T if transposed else change)).to(weight.dtype)
        if not weights[target].isfinite().all():
            raise ModelError(
                f"the adapter in {folder} makes numbers of {target} that are not finite; expected its base, "
                f"{adapter_base(folder)}: put the weights of that model there"
            )


def names_fit(weights: Mapping[str, Tensor], adapter: Mapping[str, Tensor], folder: Path) -> bool:
    """Return True if `weights` have a tensor for each module that an adapter changes; `folder` is the adapter's."""
    found = (_MATRICES.fullmatch(name) for name in adapter)
    try:
        for module in {one["module"] for one in found if one}:
            _target(f"{module}.weight", weights, {}, folder)
    except ModelError:
        return False
    return True


def check_kind(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse adapters of another kind than LoRA.

    Args:
        config: content of adapter_config.json.
        folder: of the adapter, for messages.

    Raises:
        ModelError: the adapter is of another kind.
    """
    started = str(config.get("init_lora_weights", True)).lower()
    kind = "DoRA" if config.get("use_dora") else str(config.get("peft_type"))
    if kind != "LORA" or started.startswith(_CHANGES_BASE):
        name = f"{kind}, started by {started}" if kind == "LORA" else kind
        raise ModelError(
            f"{folder} has an adapter ({name[:80]}) beside its weights; expected LoRA: merge it with PEFT's "
            f"merge_and_unload, or remove {ADAPTER_CONFIG} to load the base alone"
        )


def adapter_base(folder: Path) -> str | None:
    """Name of the model that the adapter in `folder` was trained on, or None if there is no adapter."""
    if not is_file(folder / ADAPTER_CONFIG):
        return None
    return str(read_json_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path"))[:200]


def _scale(config: Mapping[str, Any], module: str, rank: int, folder: Path) -> float:
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict) or not all(map(_NAME.fullmatch, patterns)):  # PEFT takes regular expressions too
        raise unusable(folder / ADAPTER_CONFIG, "alpha_pattern", patterns, "numbers by the names of modules")
    alpha: Any = next((patterns[name] for name in patterns if f".{module}".endswith(f".{name}")), None)
    alpha = config.get("lora_alpha") if alpha is None else alpha
    if not (isinstance(alpha, float) or is_count(alpha)) or not 0 < alpha <= _LARGEST_ALPHA:
        raise unusable(folder / ADAPTER_CONFIG, "lora_alpha", alpha, "a number above 0")
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _target(name: str, weights: Mapping[str, Tensor], sources: dict[str, str], folder: Path) -> str:
    """Name of the weight that a tensor of the adapter belongs to; wrappers put prefixes before either.

    Args:
        name: of the tensor.
        weights: of the base.
        sources: the names found so far, by those of their weights; `name` is added.
        folder: of the adapter.
    """
    parts = name.split(".")
    for start in range(len(parts) - 1):
        ending = ".".join(parts[start:])
        found = [ending] if ending in weights else [weight for weight in weights if weight.endswith(f".{ending}")]
        if len(found) == 1:
            if sources.setdefault(found[0], name) != name:
                raise ModelError(
                    f"the adapter in {folder} changes {found[0]} twice, by {sources[found[0]]} and {name}; expected "
                    f"one of them: copy it again, or merge it with PEFT"
                )
            return found[0]
        if found:
            break
    raise ModelError(
        f"the adapter in {folder} changes {name}, which the weights beside it do not have; expected its base, "
        f"{adapter_base(folder)}: put the weights of that model there"
    )


def _check_shape(shape: tuple[int, ...], weight: Tensor, name: str, folder: Path) -> None:
    if shape != tuple(weight.shape):
        raise ModelError(
            f"the adapter in {folder} has shape {shape} for {name}, the weights {tuple(weight.shape)}; "
            f"expected its base, {adapter_base(folder)}: put the weights of that model there"
        )


def check_numbers(name: str, tensor: Tensor, folder: Path) -> None:
    """Refuse a tensor of an adapter that does not have finite floats.

    Raises:
        ModelError: it does not.
    """
    if not tensor.is_floating_point() or not tensor.float().isfinite().all():
        got = "numbers that are not finite" if tensor.is_floating_point() else str(tensor.dtype)
        raise ModelError(f"the adapter in {folder} has {got} in {name}; expected finite floats: copy or train it again")
