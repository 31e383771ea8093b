"""What tensors a checkpoint holds, without reading them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..opening import is_file, open_file
from .files import read_json_object

SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"
# In the order in which transformers looks for them; an index names the files over which a checkpoint is spread.
_FORMS = (SAFETENSORS, f"{SAFETENSORS}.index.json", PICKLE, f"{PICKLE}.index.json")
_LONGEST = 10_000_000  # bytes of a header; the largest checkpoints have some hundred thousand in a file
_MOST_AXES = 64
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}  # bytes


@dataclass(frozen=True)
class Header:
    """The head of a safetensors file.

    Attributes:
        parameters: how many numbers of each floating dtype, such as {"float32": 1000}; whole numbers are left out.
        bytes: what the whole file is long.
    """

    parameters: dict[str, int]
    bytes: int


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files of the checkpoint in `folder`, all of one format; none where there is no checkpoint.

    Raises:
        ModelError: an index cannot be read.
    """
    form = next((name for name in _FORMS if is_file(folder / name)), None)
    if form is None:
        return ()
    return _shards(folder, form) if form.endswith(".index.json") else (folder / form,)


def read_header(path: Path) -> Header:
    """Read the head of a safetensors file; the tensors need not be there.

    Raises:
        ModelError: it is no safetensors file.
    """
    try:
        with open_file(path) as file:
            length = int.from_bytes(file.read(8), "little")
            content = json.loads(file.read(length)) if 0 < length <= _LONGEST else None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read ({error}); expected safetensors: copy the file again") from None
    tensors = [value for name, value in content.items() if name != "__metadata__"] if isinstance(content, dict) else []
    if not tensors or not all(map(_is_tensor, tensors)):
        raise ModelError(
            f"{path} cannot be read: it does not begin as safetensors do; expected a list of tensors: copy it again"
        )
    parameters: dict[str, int] = {}
    for tensor in tensors:
        if dtype := _DTYPES.get(tensor["dtype"]):
            parameters[dtype] = parameters.get(dtype, 0) + math.prod(tensor["shape"])
    return Header(parameters, 8 + length + max(tensor["data_offsets"][1] for tensor in tensors))


def _is_tensor(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("dtype"), str):
        return False
    shape, place = value.get("shape"), value.get("data_offsets")
    if not isinstance(shape, list) or not isinstance(place, list) or len(place) != 2:
        return False
    if len(shape) > _MOST_AXES:
        return False
    if not all(type(number) is int and 0 <= number < 2**63 for number in (*shape, *place)):
        return False
    size = _SIZES.get(value["dtype"])
    return size is None or size * math.prod(shape) == place[1] - place[0]


def _shards(folder: Path, index: str) -> tuple[Path, ...]:
    places = read_json_object(folder / index).get("weight_map")
    if not isinstance(places, dict) or not all(map(_is_file_name, places.values())):
        raise ModelError(
            f"{folder / index}: expected a weight_map from tensors to files beside it: copy the file again"
        )
    return tuple(folder / name for name in sorted(set(places.values())))


def _is_file_name(value: Any) -> bool:
    # In the Hugging Face cache a shard is a link out of the folder, so that its name is looked at and not its target.
    return isinstance(value, str) and 0 < len(value) < 256 and value.isprintable() and Path(value).name == value
