"""Checkpoints: find their files, read headers without the tensors, read and write tensors.

Tensors are read from safetensors, or by torch's weights-only reader, and written as safetensors. torch is imported only
where tensors are made, so that a folder can be described without it.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickletools
import re
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from safetensors import SafetensorError

from ..errors import ModelError, first_line, warn
from .files import is_file, open_file, read_json_object, replacing_file
from .lora import ADAPTER_CONFIG, ADAPTER_FILES, merge_adapter, names_fit
from .other_forms import other_form

if TYPE_CHECKING:
    from torch import Tensor, nn

SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"
# In the order in which transformers looks for them; an index names the files of a checkpoint in several files.
_FORMS = (SAFETENSORS, f"{SAFETENSORS}.index.json", PICKLE, f"{PICKLE}.index.json")

# The floating dtypes of safetensors, which are counted as parameters.
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_LONGEST_HEADER = 10_000_000  # bytes; the largest checkpoints have some hundred thousand in a file
_MOST_AXES = 64
_PICKLES = 5  # pickles before the tensors in a file of torch 1.5 and older
_LONGEST_NAME = 1000  # characters
_NUMBER = re.compile(r"\.\d+\.")  # of a layer, in the name of a tensor
_LAYER = re.compile(r"\b(layers?|block)\.\d+\.")


# ---- files and headers ----------------------------------------------------------------------------------------------
def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of the checkpoint in `folder`, all of one format; () if there is no checkpoint.

    Raises:
        ModelError: an index cannot be read.
    """
    form = next((name for name in _FORMS if is_file(folder / name)), None)
    if form is None:
        return ()
    if not form.endswith(".index.json"):
        return (folder / form,)
    files = read_json_object(folder / form).get("weight_map")
    if not isinstance(files, dict) or not all(map(_is_file_name, files.values())):
        raise ModelError(f"{folder / form}: expected a weight_map from tensors to files beside it: copy the file again")
    return tuple(folder / name for name in sorted(set(files.values())))


def _is_file_name(value: Any) -> bool:
    # In the Hugging Face cache a shard is a link out of the folder: its name is checked, not its target.
    return isinstance(value, str) and 0 < len(value) < 256 and value.isprintable() and Path(value).name == value


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file.

    Attributes:
        dtypes: of each tensor by name, as safetensors calls them.
        shapes: of each tensor by name.
        parameters: number of parameters of each floating dtype, such as {"float32": 1000}; integers are left out.
        bytes: size of the complete file.
    """

    dtypes: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    parameters: dict[str, int]
    bytes: int


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file, also of a truncated one, which `safetensors.safe_open` refuses.

    Raises:
        ModelError: it is not a safetensors file.
    """
    try:
        with open_file(path) as file:
            length = int.from_bytes(file.read(8), "little")
            content = json.loads(file.read(length)) if 0 < length <= _LONGEST_HEADER else None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read ({error}); expected safetensors: copy the file again") from None
    named = content if isinstance(content, dict) else {}
    named.pop("__metadata__", None)
    tensors = named.values()
    if not tensors or not all(map(_describes_tensor, tensors)):
        raise ModelError(f"{path} cannot be read: got no list of tensors; expected safetensors: copy the file again")
    parameters: dict[str, int] = {}
    for tensor in tensors:
        if dtype := FLOATS.get(tensor["dtype"]):
            parameters[dtype] = parameters.get(dtype, 0) + math.prod(tensor["shape"])
    dtypes = {name: tensor["dtype"] for name, tensor in named.items()}
    shapes = {name: tuple(tensor["shape"]) for name, tensor in named.items()}
    return Header(dtypes, shapes, parameters, 8 + length + max(tensor["data_offsets"][1] for tensor in tensors))


def _describes_tensor(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("dtype"), str):
        return False
    shape, offsets = value.get("shape"), value.get("data_offsets")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2 or len(shape) > _MOST_AXES:
        return False
    if not all(type(number) is int and 0 <= number < 2**63 for number in (*shape, *offsets)):
        return False
    size = _BYTES.get(value["dtype"])
    return size is None or size * math.prod(shape) == offsets[1] - offsets[0]


# ---- tensors --------------------------------------------------------------------------------------------------------
def read_weights(
    folder: Path,
    *,
    mapped: bool = False,
    base: Path | None = None,
    as_modules: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> dict[str, Tensor]:
    """Read all tensors of the checkpoint in `folder` to the CPU; a LoRA adapter beside them is merged.

    Args:
        folder: of the model.
        base: folder of the weights that the adapter in `folder` belongs to; by default `folder` itself.
        mapped: tensors may be a view of their file, for a caller that copies them at once. By default they are in
            memory of their own: what is written to the files later changes nothing.
        as_modules: gives tensors the names of the modules of transformers, which an adapter may have in place of those
            in files.

    Raises:
        ModelError: there is no checkpoint, or it is incomplete, or it has an adapter that cannot be merged.
    """
    if base not in (None, folder):
        return _merged(read_weights(base, mapped=mapped), folder, as_modules)
    files = weight_files(folder)
    if not files:
        if form := other_form(folder):
            raise ModelError(f"{folder} has {form}")
        raise ModelError(f"{folder} has no weights; expected {SAFETENSORS} (or {PICKLE}): copy the whole model again")
    tensors = {}
    for file in files:
        tensors.update(_read_file(file, mapped=mapped))
    if is_file(folder / ADAPTER_CONFIG):
        return _merged(tensors, folder, as_modules)
    return tensors


def _merged(
    tensors: dict[str, Tensor], folder: Path, as_modules: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None
) -> dict[str, Tensor]:
    adapter = read_adapter_tensors(folder)
    if as_modules is not None and not names_fit(tensors, adapter, folder):
        tensors = as_modules(tensors)
    merge_adapter(tensors, adapter, folder)
    return tensors


def read_adapter_tensors(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of the adapter in `folder`.

    Raises:
        ModelError: their file is missing or cannot be read.
    """
    adapter = next((folder / name for name in ADAPTER_FILES if is_file(folder / name)), None)
    if adapter is None:
        raise ModelError(
            f"{folder} has {ADAPTER_CONFIG} and no {ADAPTER_FILES[0]}; expected both: copy the whole model again, "
            f"or remove the first to load the base alone"
        )
    return _read_file(adapter)


def two_models(folder: Path, prefixes: Iterable[str]) -> ModelError:
    """Return the error for weights of two models, as of a teacher and a student, by the prefixes of their names."""
    got = " and ".join(f"{prefix}*" for prefix in sorted(prefixes))
    return ModelError(f"the weights in {folder} are of two models, {got}; expected one: remove the other")


def warn_of_unused_layers(folder: Path, found: Iterable[str], used: Collection[str]) -> None:
    """Warn if the names of tensors that are `found` are of more layers than those that are `used`."""
    some = any(map(_LAYER.search, used))  # or the word embeddings alone
    rest = (name for name in found if name not in used)
    names = (name for name in rest if (_NUMBER.sub(".0.", name, count=1) in used if some else _LAYER.search(name)))
    if layers := {_NUMBER.split(name, maxsplit=1)[0] + _NUMBER.findall(name)[0] for name in names}:
        warn(f"{folder}: {len(layers)} layers of the weights are left unused, since config.json asks for fewer: fix it")


def tensors_digest(tensors: Mapping[str, Any]) -> str:
    """Digest tensors with their names, the same on every device; values that are none are left out."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_weights(
    folder: Path, tensors: Mapping[str, Tensor], *, labelled: bool = True, name: str = SAFETENSORS
) -> None:
    """Write `tensors` to the file `name` in `folder`; `labelled` adds the format to the metadata, as transformers."""
    from safetensors.torch import save_file

    ready = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    path = folder / name
    path.touch()
    mode = path.stat().st_mode
    save_file(ready, path, metadata={"format": "pt"} if labelled else None)
    path.chmod(mode)  # safetensors makes files that only their owner can read


def rewrite_weights(path: Path, tensor_of: Callable[[str], Tensor]) -> None:
    """Write a safetensors file again with other values, one tensor at a time; names, shapes and dtypes stay.

    Args:
        path: the file, which is replaced.
        tensor_of: called with each name, in the order of the file; returns the tensor to write.

    Raises:
        ValueError: a tensor has another size than the one that it replaces.
    """
    import torch

    with open_file(path) as old, replacing_file(path) as temporary, temporary.open("wb") as new:
        start = old.read(8)
        header = old.read(int.from_bytes(start, "little"))
        new.write(start + header)
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        for name in sorted(entries, key=lambda name: entries[name]["data_offsets"][0]):
            content = tensor_of(name).detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            first, end = entries[name]["data_offsets"]
            if content.nbytes != end - first:
                raise ValueError(f"{name} has {content.nbytes} bytes, not {end - first}")
            new.write(content.data)


def load_into(
    module: nn.Module, tensors: Mapping[str, Tensor], *, source: Path, names: Mapping[str, str] | None = None
) -> None:
    """Load `tensors` into `module`, which may be on the meta device. Surplus tensors are ignored.

    Surplus layers are counted in a warning.

    Args:
        module: the module to load into.
        tensors: by the names of the checkpoint.
        source: folder of the tensors, for messages.
        names: the module's tensor names to the checkpoint's; equal by default.

    Raises:
        ModelError: a tensor is missing, has another shape, or is not floating point; then nothing is loaded.
    """
    import torch

    floats = tuple(getattr(torch, name) for name in ("float32", "float64", "float16", "bfloat16"))
    expected = module.state_dict()
    names = names or {name: name for name in expected}
    missing = [names[name] for name in expected if names[name] not in tensors]
    if missing:
        raise ModelError(
            f"the weights in {source} lack {len(missing)} of {len(expected)} tensors, first {missing[0]}; expected "
            f"those that belong to its config.json: copy the whole model again"
        )
    loaded = {name: tensors[names[name]] for name in expected}
    for name, tensor in loaded.items():
        if tensor.shape != expected[name].shape:
            raise ModelError(
                f"the weights in {source} have shape {tuple(tensor.shape)} for {names[name]}; its config.json asks for "
                f"{tuple(expected[name].shape)}: copy the whole model again"
            )
        if tensor.dtype not in floats:
            raise ModelError(
                f"the weights in {source} are {tensor.dtype} for {names[name]}; expected one of "
                f"{', '.join(map(str, floats))}: save the model without quantization"
            )
    warn_of_unused_layers(source, tensors, set(names.values()))
    module.load_state_dict(loaded, assign=True)
    module.requires_grad_(True)


def _read_file(path: Path, *, mapped: bool = False) -> dict[str, Tensor]:
    return _read_safetensors(path, mapped=mapped) if path.suffix == ".safetensors" else _read_pickle(path)


def _read_safetensors(path: Path, *, mapped: bool) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    read_header(path)  # refuses pipes, and headers that torch would fail on
    try:
        return {name: tensor if mapped else tensor.clone() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read ({error}); expected safetensors: copy the file again") from None


def _read_pickle(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        with open_file(path) as file:
            check_archive(file)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types here, and its messages have many lines
        reason = first_line(error)
        raise ModelError(f"{path} cannot be read as tensors ({reason}); expected safetensors: convert it") from None
    if not isinstance(loaded, dict) or not all(map(_is_named_tensor, loaded, loaded.values())):
        raise ModelError(f"{path} holds something other than tensors by name; expected safetensors: convert it")
    return loaded


def check_archive(file: BinaryIO) -> None:
    """Refuse a file of torch.save that would take too much memory or time to read.

    Raises:
        ValueError: it is compressed, or holds too long a name.
    """
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
    """Return True for a dense CPU tensor with an element in memory for each of its own: no views that repeat a few."""
    import torch

    if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
        return False
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
