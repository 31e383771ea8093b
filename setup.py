"""Compile the C++ kernels as a part of the package, if there is a compiler; all else is in pyproject.toml.

They are one plain shared library without a line about Python or torch, so that it serves every version of both.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

NATIVE = Path("kernels", "cpu_ops", "native")
FLAGS = (
    *("-O3", "-std=c++17", "-fPIC", "-fopenmp", "-fvisibility=hidden"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi"),
)
_AVX2 = ("-mavx2", "-mfma")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mprefer-vector-width=512")
# Files are compiled for the instruction set of each level; which one runs is chosen when the library is loaded.
LEVELS: dict[str, tuple[str, ...]] = {"portable": ()}
if platform.machine() in ("x86_64", "AMD64"):
    LEVELS |= {
        "avx2": _AVX2,
        "avx512": _AVX512,
        "avx512_vnni": (*_AVX512, "-mavx512vnni"),
        "avx512_bf16": (*_AVX512, "-mavx512vnni", "-mavx512bf16"),
    }


def compiler() -> list[str]:
    """Return the command of the C++ compiler, from the environment variable CXX or g++; empty if there is none.

    The kernels are for Linux only.
    """
    command = shlex.split(os.environ.get("CXX") or "g++")
    if sys.platform != "linux" or not command or shutil.which(command[0]) is None:
        sys.stderr.write(f"minisbert goes without its C++ kernels: no compiler {' '.join(command)} here\n")
        return []
    return command


COMPILER = compiler()


class BuildLibrary(build_ext):
    """Compile each level, leave out those that the compiler does not know, and link them to one library."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return the name of a library that belongs to no version of Python."""
        return f"{fullname.replace('.', os.sep)}.so"

    def build_extension(self, ext: Extension) -> None:
        """Build the library.

        Raises:
            CompileError: the compiler fails at the portable level; setuptools goes on without the library.
        """
        folder, built = Path(self.build_temp), Path(self.get_ext_fullpath(ext.name))
        for place in (folder, built.parent):
            place.mkdir(parents=True, exist_ok=True)
        jobs = [(level, source) for level in LEVELS for source in ext.sources if Path(source).stem != "levels"]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            failed = list(pool.map(lambda job: _compile(folder, *job), jobs))
        left_out = {level: error for (level, _), error in zip(jobs, failed, strict=True) if error is not None}
        if "portable" in left_out:
            raise CompileError(left_out["portable"])
        for level, error in left_out.items():
            self.warn(f"the kernels go without {level}: {error}")
        held = [level for level in LEVELS if level not in left_out]
        sources = hashlib.sha256(b"\0".join(file.read_bytes() for file in sorted(NATIVE.glob("*.?pp"))))
        names = [f"-DHOLDS_{level}" for level in held]
        _run("-c", NATIVE / "levels.cpp", "-o", folder / "levels.o", *names, f'-DSOURCES="{sources.hexdigest()}"')
        objects = [folder / f"{Path(source).stem}-{level}.o" for level, source in jobs if level in held]
        # Linked without OpenMP's flag, so that its functions are those of the library that torch has loaded.
        _run("-shared", folder / "levels.o", *objects, "-o", built, flags=("-Wl,--as-needed", "-s"))


class PlatformWheel(bdist_wheel):
    """Say that one library serves every Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tags of Python, its ABI and the platform."""
        tag: tuple[str, str, str] = super().get_tag()
        return tag if self.root_is_pure else ("py3", "none", tag[2])


def _compile(folder: Path, level: str, source: str) -> str | None:
    """Compile a file for a level; returns what is wrong, or None."""
    try:
        _run("-c", source, "-o", folder / f"{Path(source).stem}-{level}.o", f"-DLEVEL={level}", *LEVELS[level])
    except CompileError as error:
        return str(error)
    return None


def _run(*arguments: object, flags: tuple[str, ...] = FLAGS) -> None:
    command = [*COMPILER, *flags, *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")  # noqa: S603
    except OSError as error:
        raise CompileError(f"{command[0]}: {error}") from None
    if done.returncode:
        lines = done.stderr.splitlines()
        raise CompileError(next((line for line in lines if "error" in line), "".join(lines[:1]) or "no reason given"))


library = Extension(
    "minisbert.kernels.cpu_ops.libminisbert",
    sources=[str(file) for file in sorted(NATIVE.glob("*.cpp"))],
    depends=[str(file) for file in sorted(NATIVE.glob("*.hpp"))],
    optional=True,
)
setup(
    ext_modules=[library] if COMPILER else [],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": PlatformWheel},
)
