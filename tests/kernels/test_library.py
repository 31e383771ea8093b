"""The library of C++ kernels: how it is built, found and chosen, and that every level computes the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from common import forget_the_level
from minisbert.kernels.cpu_ops import fused, library
from places import ROOT

from minisbert import SentenceTransformer, kernels
from minisbert.cli import main
from minisbert.errors import ConfigError

NATIVE = ROOT / "kernels" / "cpu_ops" / "native"


@pytest.fixture(params=library.LEVELS)
def level(request: pytest.FixtureRequest, with_native: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A level of instruction sets, in use."""
    if request.param not in library.levels():
        pytest.skip("the processor cannot run it")
    monkeypatch.setenv("MINISBERT_ISA", request.param)
    forget_the_level()
    yield request.param
    forget_the_level()


def test_every_level_computes_its_operations(level: str) -> None:
    assert library.level() == level
    torch.manual_seed(1)
    x, residual, weight, bias = torch.randn(9, 48), torch.randn(9, 48), torch.randn(48), torch.randn(48)
    exact = torch.nn.functional.layer_norm((x + residual).double(), (48,), weight.double(), bias.double(), 1e-12)
    got = fused.add_norm(x, residual, weight, bias, eps=1e-12)
    assert float((got - exact).abs().max()) < 1e-5
    assert float((fused.gelu(x) - torch.nn.functional.gelu(x.double())).abs().max()) < 2e-6


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_every_level_embeds(level: str, dtype: str, minilm: Path) -> None:
    texts = ["one", "A man plays a guitar.", "the cat sat on the mat " * 9, ""]
    model = SentenceTransformer(minilm, device="cpu", dtype=dtype)  # type: ignore[arg-type]
    with kernels.use("reference"):
        expected = SentenceTransformer(minilm, device="cpu").encode(texts)
    got = model.encode(texts)
    if dtype == "float32":
        assert abs(got - expected).max() < 1e-6
    else:
        assert (got * expected).sum(1).min() > {"bfloat16": 0.999, "int8": 0.997}[dtype]


def test_a_level_that_does_not_run_is_refused(with_native: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINISBERT_ISA", "avx3")
    library.level.cache_clear()
    with pytest.raises(ConfigError, match=r"got MINISBERT_ISA=avx3; expected .*portable.*, or none$"):
        library.level()
    library.level.cache_clear()


def test_without_the_library_everything_goes_through_torch(without_native: None) -> None:
    assert library.level() is None
    assert library.functions() is None
    assert not fused.available()
    assert library.refusal() == "MINISBERT_ISA is none"
    with pytest.raises(ConfigError, match="no C.. kernels .MINISBERT_ISA is none."):
        fused.gelu(torch.zeros(16))
    assert type(kernels.choose(torch.zeros(2, 4))).__name__ != "Fused"


@pytest.fixture
def copied(tmp_path: Path, with_native: None) -> Path:
    """A copy of the package, to change."""
    shutil.copytree(ROOT / "minisbert", tmp_path / "minisbert", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "kernels", tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


def told(folder: Path, **environment: str) -> str:
    code = "from minisbert.kernels import library; print(library.level(), '|', library.refusal())"
    command = [sys.executable, "-c", code]
    variables = {**os.environ, "PYTHONPATH": str(folder), **environment}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=variables)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_a_library_that_is_not_there_or_not_whole(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINISBERT_ISA", raising=False)
    file = copied / "kernels" / "cpu_ops" / library.FILE.name
    assert told(copied) == f"{library.levels()[-1]} | None"
    source = copied / "kernels" / "cpu_ops" / "native" / "norm.hpp"
    before = source.read_text()
    source.write_text(f"{before}\n")
    assert re.search(r"ConfigError: got .*libminisbert.so, compiled from other sources .*install minisbert again$",
                     told(copied))  # fmt: skip
    assert told(copied, MINISBERT_ISA="none") == "None | MINISBERT_ISA is none"
    source.write_text(before)
    file.write_bytes(b"no library")
    assert told(copied).startswith("None | libminisbert.so cannot be loaded: ")
    file.unlink()
    assert told(copied) == "None | minisbert was installed without a C++ compiler: install g++, then minisbert again"


def test_no_file_brings_names_that_the_linker_would_merge() -> None:
    """Templates of the standard library have one name at every level, and the processor may not run the one kept."""
    for file in NATIVE.glob("*.?pp"):
        text = file.read_text()
        headers = set(re.findall(r"#include <(\S+)>", text))
        assert headers <= {"immintrin.h", "math.h", "omp.h", "stdint.h", "stdlib.h", "string.h", "utility",
                           "type_traits", "cpuid.h"}, file.name  # fmt: skip
        used = set(re.findall(r"std::(\w+)", text))
        assert used <= {
            "integer_sequence",
            "make_integer_sequence",
            "integral_constant",
            "conditional_t",
            "true_type",
            "false_type",
        }, file.name


def test_no_second_openmp_is_loaded(with_native: None) -> None:
    if not Path("/proc/self/maps").is_file():
        pytest.skip("no /proc")
    code = """
from pathlib import Path
import torch
from minisbert.kernels.cpu_ops import fused
def loaded():
    return {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "omp" in line}
before = loaded()
fused.gelu(torch.zeros(100_000))
print(len(before), len(loaded() - before))
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stdout.split() == ["1", "0"], result.stderr


def test_command(with_native: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels"]) == 0
    shown = capsys.readouterr().out
    assert "levels that run here" in shown
    assert "attention" in shown
    with kernels.use("reference"):
        assert main(["kernels", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["machine"]["mode"] == "reference"
    assert printed["machine"]["C++ kernels"] == library.level()
    assert {row["version"] for row in printed["operations"]} == {"torch"}


def test_command_without_the_library(without_native: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels"]) == 0
    assert "C++ kernels: MINISBERT_ISA is none" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="the library is built on Linux")
def test_a_compiler_that_fails_or_is_not_there(tmp_path: Path) -> None:
    """Without the library minisbert builds all the same."""
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\necho 'fused.cpp:3: error: no luck' >&2\nexit 1\n")
    failing.chmod(0o755)
    no_program = tmp_path / "no program"
    no_program.write_text("no program")
    no_program.chmod(0o755)
    for compiler, expected in (
        (failing, "fused.cpp:3: error: no luck"),
        (f"{failing} -O3", "fused.cpp:3: error: no luck"),
        ("no-such-compiler", "no compiler no-such-compiler here"),
        (f"'{no_program}'", "Exec format error"),
    ):
        command = [sys.executable, "setup.py", "-v", "build_ext", "-b", str(tmp_path / "b"), "-t", str(tmp_path / "t")]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "CXX": str(compiler)}
        )
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout + done.stderr
        assert not list(tmp_path.rglob("*.so"))
