"""The library of C++ kernels: compile `native/` when asked to, load it, and check what is passed to it.

The library is in the cache of huggingface_hub, under a name made from the source, the flags and the processor: only the
same version of the source on the same kind of machine finds it. Only `minisbert kernels --build` compiles.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minisbert.errors import ConfigError

_NATIVE = Path(__file__).with_name("native")
SOURCES = sorted(_NATIVE.glob("*.cpp"))
FLAGS = (
    *("-O3", "-march=native", "-std=c++17", "-fPIC", "-fopenmp"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi"),
)
_AGAIN = "build it again with `minisbert kernels --build`"


def location() -> Path:
    """Return the path of the library for this machine, built or not."""
    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"))
    return Path(os.path.expandvars(home)).expanduser() / "minisbert" / "kernels" / f"{_name()}.so"


def compiler() -> str | None:
    """Return the C++ compiler: that of the environment variable CXX, g++ or c++; None if there is none."""
    named = os.environ.get("CXX")
    return shutil.which(named) if named else shutil.which("g++") or shutil.which("c++")


def refusal() -> str | None:
    """Return why there is no library to load, or None if there is one.

    A library that another user could have written is refused; a broken one is an error of `library`.
    """
    path = location()
    if not path.is_file():
        return "not built"
    for place in (path, path.parent):
        status = place.stat()
        if hasattr(os, "getuid") and status.st_uid != os.getuid():
            return f"{place} belongs to another user"
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"{place} can be written by other users"
    return None


@cache
def library() -> ctypes.CDLL | None:
    """Load the library built for this machine and declare its functions; None if there is none.

    Raises:
        ConfigError: its file is not what was built.
    """
    if refusal() is not None:
        return None
    path = location()
    if build_record(path).get("sha256") != _digest(path):
        raise ConfigError(f"got {path}, which is not what was built; expected its recorded digest: {_AGAIN}")
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise ConfigError(f"got {path}, which cannot be loaded ({_first_line(str(error))}): {_AGAIN}") from None
    _declare(loaded)
    return loaded


def required() -> ctypes.CDLL:
    """Load the library.

    Raises:
        ConfigError: there is none.
    """
    found = library()
    if found is None:
        raise ConfigError(f"got no built kernels ({refusal()}): build them with `minisbert kernels --build`")
    return found


def build_record(path: Path) -> dict[str, Any]:
    """Return the record beside the library at `path`: its digest and compiler; empty if it cannot be read."""
    try:
        record = json.loads(path.with_suffix(".json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def build() -> Path:
    """Compile the library for this machine and return its file.

    Raises:
        ConfigError: there is no compiler, it fails, or the folder cannot be written.
    """
    found = compiler()
    if found is None:
        raise ConfigError("got no C++ compiler (g++, c++ or the one in CXX); expected one to build with: install g++")
    path = location()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            built, record = Path(folder, "kernels.so"), Path(folder, "kernels.json")
            objects = [f"{folder}/{source.stem}.o" for source in SOURCES]
            for source, compiled in zip(SOURCES, objects, strict=True):
                _run([found, *FLAGS, "-c", str(source), "-o", compiled])
            # Linked without OpenMP's flag, so that its functions are those of the library that torch has loaded.
            _run([found, "-shared", *objects, "-o", str(built)])
            version = _first_line(_run([found, "--version"]))
            record.write_text(json.dumps({"sha256": _digest(built), "compiler": version, "flags": FLAGS}, indent=2))
            for file in (record, built):
                file.chmod(0o600)
                file.replace(path.with_suffix(file.suffix))
    except OSError as error:
        raise ConfigError(
            f"cannot write to {path.parent} ({error.strerror}); expected a folder for built kernels: set HF_HOME"
        ) from None
    library.cache_clear()
    return path


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


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")  # noqa: S603
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if "error" in line), _first_line(done.stderr))
        raise ConfigError(f"{command[0]} cannot build the kernels: {reason.strip() or 'no reason given'}")
    return done.stdout


@cache
def _name() -> str:
    texts = (file.read_text() for file in sorted(_NATIVE.glob("*.?pp")))
    parts = (*texts, *FLAGS, sys.platform, platform.machine(), *_processor())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _processor() -> list[str]:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return [platform.processor()]
    first = cpuinfo.read_text(errors="replace").split("\n\n")[0].splitlines()
    return [line for line in first if line.startswith(("model name", "flags", "Features", "CPU part"))]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0]


_POINTER, _INT, _UINT64 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint64
_FLOAT, _DOUBLE = ctypes.c_float, ctypes.c_double
_DROPOUT = (ctypes.c_uint32, _FLOAT, _UINT64)  # threshold, scale of what is kept, seed
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "attention_forward": (_POINTER,) * 3 + (_INT,) * 3 + (_FLOAT, *_DROPOUT, _POINTER),
    "attention_backward": (_POINTER,) * 6 + (_INT,) * 3 + (_FLOAT, *_DROPOUT),
    "add_norm_forward": (_INT,) * 2 + (_POINTER,) * 4 + (_FLOAT,) + (_POINTER,) * 3 + _DROPOUT,
    "add_norm_backward": (_INT,) * 2 + (_POINTER,) * 8 + _DROPOUT,
    "gelu_forward": (_INT, _POINTER, _POINTER),
    "gelu_backward": (_INT, _POINTER, _POINTER, _POINTER),
    "mean_pool": (_POINTER, _POINTER, _INT, _INT, _POINTER),
    "adamw_rows": (_POINTER,) * 5 + (_INT,) * 3 + (_DOUBLE,) * 4 + (_INT,),
    "dropout_mask": (_UINT64, _INT, _INT, _INT, ctypes.c_uint32, _POINTER),
    "encoder_dtypes": (),
    "encoder_product": (_INT,) * 4 + (_POINTER,) * 3 + (_INT, _POINTER),
    "encoder_run": (_INT,) + (_POINTER,) * 5 + (_INT,) * 3 + (_POINTER,),
}
_RESULTS = ("adamw_rows", "encoder_dtypes", "encoder_run")


def _declare(loaded: ctypes.CDLL) -> None:
    for name, types in _FUNCTIONS.items():
        function = getattr(loaded, name)
        function.argtypes = list(types)
        function.restype = _INT if name in _RESULTS else None
