"""Folders of a LoRA adapter without the weights it was trained on, as PEFT and the reference write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, ModelError
from .dialects import unusable
from .files import is_file, read_json_object, write_json
from .layout import read_layout
from .locate import find_model
from .lora import ADAPTER_CONFIG, ADAPTER_FILES, check_kind, check_numbers
from .other_forms import other_form
from .weights import read_adapter_tensors, weight_files, write_weights

if TYPE_CHECKING:
    from torch import Tensor

# Settings of PEFT that change which numbers an adapter computes, and are not computed here.
_UNUSABLE = ("rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias", "fan_in_fan_out")


def base_folder(folder: Path) -> Path:
    """Return the folder of the weights that belong to a transformer's `folder`.

    It is the same folder, or that of the adapter's base if there is only an adapter. The base is looked for where
    `find_model` looks, but not on the Hub.

    Raises:
        ModelError: the base cannot be found.
    """
    if weight_files(folder) or not is_file(folder / ADAPTER_CONFIG):
        return folder
    config = read_json_object(folder / ADAPTER_CONFIG)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    try:
        if not isinstance(name, str) or not any(is_file(folder / file) for file in ADAPTER_FILES):
            raise ModelError("it names no base")
        found = read_layout(find_model(name, revision=revision, local_files_only=True)).modules[0].folder
        if weight_files(found):
            return found
    except ModelError as error:
        raise ModelError(f"{folder} has {other_form(folder)}") from error
    raise ModelError(f"{folder} has {other_form(folder)}")


def write_adapter(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write an adapter as PEFT does.

    Args:
        folder: to write into.
        tensors: by PEFT's names.
        config: entries of adapter_config.json beside those that are the same for every adapter.
    """
    same = {"peft_type": "LORA", "task_type": None, "init_lora_weights": True, "fan_in_fan_out": False}
    same |= {"inference_mode": True, "modules_to_save": None, "use_dora": False}
    write_json(folder / ADAPTER_CONFIG, dict(sorted({**same, **config}.items())), indent=2)
    write_weights(folder, tensors, name=ADAPTER_FILES[0])


def read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the settings and the tensors of an adapter.

    Raises:
        ModelError: there is none, it is of another kind than LoRA, or it has settings for single layers.
    """
    if not is_file(folder / ADAPTER_CONFIG):
        raise ModelError(f"{folder} has no {ADAPTER_CONFIG}; expected the folder of a LoRA adapter: check its name")
    config = read_json_object(folder / ADAPTER_CONFIG)
    check_kind(config, folder)
    for name in _UNUSABLE:
        if config.get(name):
            raise unusable(folder / ADAPTER_CONFIG, name, config[name], "none: load base and adapter merged")
    tensors = read_adapter_tensors(folder)
    for name, tensor in tensors.items():
        check_numbers(name, tensor, folder)
    return config, tensors


def check_no_base(folder: Path) -> None:
    """Refuse to write an adapter beside weights that a reader would take for its base.

    Raises:
        InputError: `folder` has weights.
    """
    if folder.is_dir() and (files := weight_files(folder)):
        raise InputError(
            f"{folder} holds {files[0].name}, which would be taken for the base of the adapter; expected a folder "
            f"without weights: choose another one, or call merge_and_unload() first"
        )


def remove_adapter(folder: Path) -> None:
    """Remove the files of an adapter from a folder that gets weights of its own."""
    for name in (ADAPTER_CONFIG, *ADAPTER_FILES):
        (folder / name).unlink(missing_ok=True)
