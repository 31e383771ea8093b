"""What a result was measured on, and where results go."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from minisbert.cli.kernels import machine

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("minisbert", "torch", "transformers", "sentence-transformers", "tokenizers", "numpy")
PEERS = ("onnxruntime", "openvino", "nncf", "ctranslate2")


def fingerprint() -> dict[str, Any]:
    """Processor, threads, versions and date."""
    info = Path("/proc/cpuinfo")
    fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line) if info.is_file() else {}
    cpu = {name.strip(): value.strip() for name, value in fields.items()}
    return {
        "cpu": cpu.get("model name", platform.processor()),
        "family_model": f"{cpu.get('cpu family', '?')}/{cpu.get('model', '?')}",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in (*PACKAGES, *PEERS)},
        "cpp_kernels": machine()["C++ kernels"],
        "commit": _commit(),
        "date": date.today().isoformat(),
    }


def gpu() -> dict[str, Any]:
    """The CUDA device, its driver, and what torch and Triton compile for it with."""
    about = torch.cuda.get_device_properties(0)
    return {
        "name": about.name,
        "memory_gb": round(about.total_memory / 1e9, 1),
        "capability": f"{about.major}.{about.minor}",
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "triton": _version("triton"),
    }


def save(name: str, result: dict[str, Any], *, keep: bool = True) -> None:
    """Write a result to results/NAME.json (unless it is not to be kept), and print it as one line of JSON."""
    content = {"benchmark": name, "machine": fingerprint(), **result}
    if keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(content))


def table(rows: list[tuple[Any, ...]]) -> str:
    """Rows of cells as aligned text."""
    cells = [[f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in cells)


def _driver() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return "not known"
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not known"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """The commit of this checkout, with a plus sign if files differ from it."""
    command = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not known"
