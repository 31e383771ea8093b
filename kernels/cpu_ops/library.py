"""The library of C++ kernels: load it, choose the instruction set that it runs with, and check what is passed to it.

`setup.py` compiles `native/` where minisbert is installed with a C++ compiler at hand: one plain shared library that
holds every function once for each level of instruction sets. The highest level that the processor runs is taken; the
environment variable MINISBERT_ISA names a lower one, or "none" for PyTorch alone.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from minisbert.errors import ConfigError

LEVELS = ("portable", "avx2", "avx512", "avx512_vnni", "avx512_bf16")  # in the order of setup.py and levels.cpp
FILE = Path(__file__).with_name("libminisbert.so")
_SOURCES = Path(__file__).with_name("native")  # in a checkout


@cache
def functions() -> SimpleNamespace | None:
    """Return the functions of the library at the chosen level, or None if there are none to run.

    Attributes are the C functions by name, and `dtypes`: the sum of the dtypes, as encoder.cpp numbers them, whose
    products it should compute on this processor.

    Raises:
        ConfigError: MINISBERT_ISA names no level that runs here, or the library is not that of the sources beside it.
    """
    name = level()
    if name is None:
        return None
    loaded, found = _load(), SimpleNamespace()
    for function, types in _FUNCTIONS.items():
        entry = getattr(loaded, f"{name}_{function}")
        entry.argtypes, entry.restype = list(types), _INT if function in _RESULTS else None
        setattr(found, function, entry)
    # With matrix registers, oneDNN has the better product.
    found.dtypes = found.encoder_dtypes() & ~loaded.library_matrix_dtypes()
    return found


def required() -> SimpleNamespace:
    """Return the functions of the library.

    Raises:
        ConfigError: there is none.
    """
    found = functions()
    if found is None:
        raise ConfigError(f"got no C++ kernels ({refusal()}); expected them for this operation")
    return found


@cache
def level() -> str | None:
    """Return the name of the level that runs, or None if none does. MINISBERT_ISA is read at the first use.

    Raises:
        ConfigError: MINISBERT_ISA names no level that runs here, or the library is not that of the sources beside it.
    """
    wanted = os.environ.get("MINISBERT_ISA")
    if wanted == "none":
        return None
    runs = levels()
    if wanted and wanted not in (runs or LEVELS):
        raise ConfigError(
            f"got MINISBERT_ISA={wanted}; expected a level that runs here ({', '.join(runs) or 'none does'}), or none"
        )
    return (wanted or runs[-1]) if runs else None


def levels() -> tuple[str, ...]:
    """Return the levels that this processor can run, from the lowest on; empty without a library."""
    loaded = _load()
    if isinstance(loaded, str):
        return ()
    runs = int(loaded.library_levels())
    return tuple(name for number, name in enumerate(LEVELS) if runs >> number & 1)


def refusal() -> str | None:
    """Return why no level runs, or None if one does."""
    if os.environ.get("MINISBERT_ISA") == "none":
        return "MINISBERT_ISA is none"
    loaded = _load()
    return loaded if isinstance(loaded, str) else None


@cache
def _load() -> Any:
    """Load the library; returns why not, if there is none or it cannot be loaded."""
    if not FILE.is_file():
        return "minisbert was installed without a C++ compiler: install g++, then minisbert again"
    try:
        loaded = ctypes.CDLL(str(FILE))
    except OSError as error:
        return f"{FILE.name} cannot be loaded: {str(error).splitlines()[0]}"
    try:
        loaded.library_sources.restype = ctypes.c_char_p
        loaded.library_levels.restype = loaded.library_matrix_dtypes.restype = _INT
    except AttributeError:
        return f"{FILE.name} is another library"
    texts = [file.read_bytes() for file in sorted(_SOURCES.glob("*.?pp"))]
    if texts and hashlib.sha256(b"\0".join(texts)).hexdigest().encode() != loaded.library_sources():
        raise ConfigError(
            f"got {FILE}, compiled from other sources than those beside it; expected the same: install minisbert again"
        )
    return loaded


def pointer(value: Tensor | None) -> int | None:
    """Return the address of the elements."""
    return None if value is None else value.data_ptr()


def check(name: str, value: Tensor, rows: int | None, columns: int | None, dtype: torch.dtype) -> None:
    """Check the shape (None for any size) and dtype of an argument, which must be contiguous and on the CPU.

    Raises:
        ConfigError: it is something else.
    """
    wrong = (rows is not None and value.shape[0] != rows) or (columns is not None and value.shape[-1] != columns)
    if wrong or value.dtype != dtype or value.device.type != "cpu" or not value.is_contiguous():
        layout = "contiguous" if value.is_contiguous() else "not contiguous"
        raise ConfigError(
            f"got {name} of shape {list(value.shape)}, {value.dtype}, on {value.device}, {layout}; expected "
            f"{dtype} on the cpu, contiguous, {rows or 'any'} rows of {columns or 'any'}"
        )


def check_texts(offsets: Tensor, tokens: int) -> None:
    """Check that the offsets of texts, int32, go from 0 to the number of tokens.

    Raises:
        ConfigError: they do not.
    """
    check("offsets", offsets, None, None, torch.int32)
    if int(offsets[-1]) != tokens or int(offsets[0]):
        raise ConfigError(f"got offsets up to {int(offsets[-1])}; expected them to end at the {tokens} tokens")


_POINTER, _INT, _UINT64 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint64
_FLOAT, _DOUBLE = ctypes.c_float, ctypes.c_double
_DROPOUT = (ctypes.c_uint32, _FLOAT, _UINT64)  # threshold, scale of what is kept, seed
_TRAINING = (_INT, *(_POINTER,) * 3, *(_INT,) * 3)  # dtype, layers, embeddings, offsets, texts, tokens, threads
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "attention_forward": (_POINTER,) * 3 + (_INT,) * 3 + (_FLOAT, *_DROPOUT, _POINTER),
    "attention_backward": (_POINTER,) * 6 + (_INT,) * 3 + (_FLOAT, *_DROPOUT),
    "add_norm_forward": (_INT,) * 2 + (_POINTER,) * 4 + (_FLOAT,) + (_POINTER,) * 3 + _DROPOUT,
    "add_norm_backward": (_INT,) * 2 + (_POINTER,) * 8 + _DROPOUT,
    "dropout": (_INT, _INT, _POINTER, _POINTER, *_DROPOUT),
    "gelu_forward": (_INT, _POINTER, _POINTER),
    "gelu_backward": (_INT, _POINTER, _POINTER, _POINTER),
    "mean_pool": (_POINTER, _POINTER, _INT, _INT, _POINTER),
    "adamw_rows": (_POINTER,) * 5 + (_INT,) * 3 + (_DOUBLE,) * 4 + (_INT,),
    "dropout_mask": (_UINT64, _INT, _INT, _INT, ctypes.c_uint32, _POINTER),
    "encoder_dtypes": (),
    "encoder_product": (_INT,) * 4 + (_POINTER,) * 2 + (_INT, _POINTER),
    "training_kept": _TRAINING,
    "training_shared": _TRAINING,
    "training_forward": (*_TRAINING, *(_POINTER,) * 3),
    "training_backward": (*_TRAINING, *(_POINTER,) * 3, _INT),
    "encoder_run": (_INT,) + (_POINTER,) * 5 + (_INT,) * 3 + (_POINTER,),
}
_RESULTS = ("adamw_rows", "encoder_dtypes", "encoder_run", "training_kept", "training_shared")
