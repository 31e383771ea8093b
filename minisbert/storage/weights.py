"""Tensors of a folder: read from safetensors, or by torch's weights-only reader; written as safetensors."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

import torch
from torch import Tensor

from ..errors import ModelError
from ..opening import open_file
from .headers import PICKLE, SAFETENSORS, read_header, weight_files

_PICKLES = 5  # that stand before the numbers in a file of torch 1.5 and before
_LONGEST_NAME = 1000  # characters
_NUMBERS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


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
        ModelError: a tensor is missing, of another shape, or not of floats; nothing has then been loaded.
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
        if tensors[names[name]].dtype not in _NUMBERS:
            raise ModelError(
                f"the weights in {source} are {tensors[names[name]].dtype} for {names[name]}; expected one of "
                f"{', '.join(map(str, _NUMBERS))}: save the model without quantization"
            )
    module.load_state_dict({name: tensors[names[name]] for name in wanted}, assign=True)
    for parameter in module.parameters():
        parameter.requires_grad_(True)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    read_header(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read ({error}); expected safetensors: copy the file again") from None


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with open_file(path) as file:
            check_archive(file)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here, and its text runs over many lines
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"{path} cannot be read as plain tensors ({reason}); expected safetensors") from None
    if not isinstance(loaded, dict) or not all(map(_is_named_tensor, loaded, loaded.values())):
        raise ModelError(f"{path} holds something other than tensors by name; expected safetensors")
    return loaded


def check_archive(file: BinaryIO) -> None:
    """Refuse what torch would take too much memory or time to refuse."""
    if not zipfile.is_zipfile(file):
        file.seek(0)
        for _ in range(_PICKLES):
            _check_pickle(file)
        return
    archive = zipfile.ZipFile(file)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise ValueError("it is compressed")
    for entry in archive.infolist():
        if entry.filename.endswith("data.pkl"):
            with archive.open(entry) as opened:
                _check_pickle(opened)


def _check_pickle(file: IO[bytes]) -> None:
    for _, value, _ in pickletools.genops(file):
        if isinstance(value, (str, bytes)) and len(value) > _LONGEST_NAME:
            raise ValueError(f"a name of {len(value):,} characters")


def _is_named_tensor(name: Any, tensor: Any) -> bool:
    """Whether it has its own numbers: a few can pose as any number of them, and those of a sparse one are elsewhere."""
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        return False
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
