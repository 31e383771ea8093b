"""Tensors of a folder: read from safetensors, or by torch's weights-only reader; written as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from .headers import PICKLE, SAFETENSORS, weight_files


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of the checkpoint in `folder`, on the CPU.

    Raises:
        ModelError: there is no checkpoint, or it is incomplete.
    """
    files = weight_files(folder)
    if not files:
        raise ModelError(f"{folder} has no weights; expected {SAFETENSORS} (or {PICKLE}): copy the whole model again")
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors.update(_read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file))
    return tensors


def write_weights(folder: Path, tensors: Mapping[str, Tensor], *, labelled: bool = True) -> None:
    """Write `tensors` to model.safetensors in `folder`, labelled as PyTorch's as transformers does it, or not."""
    from safetensors.torch import save_file

    ready = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    path = folder / SAFETENSORS
    path.touch()
    mode = path.stat().st_mode
    save_file(ready, path, metadata={"format": "pt"} if labelled else None)
    path.chmod(mode)  # safetensors makes files that only their owner can read


def load_into(
    module: torch.nn.Module, tensors: Mapping[str, Tensor], *, source: Path, names: Mapping[str, str] | None = None
) -> None:
    """Put `tensors` into `module`, which may be on the meta device. Surplus tensors are ignored.

    Args:
        module: what to fill.
        tensors: by the names of the checkpoint.
        source: where they come from, for messages.
        names: the module's tensor names to the checkpoint's; equal by default.

    Raises:
        ModelError: a tensor is missing or of another shape; nothing has then been loaded.
    """
    wanted = module.state_dict()
    names = names or {name: name for name in wanted}
    missing = [names[name] for name in wanted if names[name] not in tensors]
    if missing:
        raise ModelError(
            f"the weights in {source} lack {len(missing)} of {len(wanted)} tensors, first {missing[0]}; expected those "
            f"that belong to its config.json: copy the whole model again"
        )
    for name, tensor in wanted.items():
        if tensors[names[name]].shape != tensor.shape:
            raise ModelError(
                f"the weights in {source} have shape {tuple(tensors[names[name]].shape)} for {names[name]}; its "
                f"config.json asks for {tuple(tensor.shape)}"
            )
    module.load_state_dict({name: tensors[names[name]] for name in wanted}, assign=True)
    for parameter in module.parameters():
        parameter.requires_grad_(True)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read ({error}); expected safetensors: copy the file again") from None


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here, and its text runs over many lines
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"{path} cannot be read as plain tensors ({reason}); expected safetensors") from None
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ModelError(f"{path} holds something other than tensors by name; expected safetensors")
    return loaded
