"""What importing and the first embedding cost, in fresh processes, interleaved."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from typing import Any

from machine import table

_CLOCK = "import sys, time; start = time.perf_counter(); {}; print(time.perf_counter() - start, len(sys.modules))"
_OVER_TORCH = (
    "import time, torch; start = time.perf_counter(); "
    "from minisbert import SentenceTransformer, Trainer, losses, util; print(time.perf_counter() - start)"
)
_MODEL = "from minisbert.storage.locate import packaged_model; name = str(packaged_model())"
CASES = {
    "import torch": "import torch",
    "import torch, minisbert": "import torch, minisbert",
    "import torch, all of minisbert": "import torch; from minisbert import SentenceTransformer, Trainer, losses, util",
    "import sentence_transformers": "import sentence_transformers",
    "first embedding, minisbert": f"{_MODEL}; from minisbert import SentenceTransformer as S; "
    "S(name, device='cpu').encode('a')",
    "first embedding, reference": f"{_MODEL}; from sentence_transformers import SentenceTransformer as S; "
    "S(name, device='cpu').encode('a')",
}


def _python(code: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start a process for each case, several times."""
    runs = options.rounds
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    modules: dict[str, int] = {}
    for _ in range(runs + 1):  # the first round warms the file cache and does not count
        for name, code in CASES.items():
            printed = _python(_CLOCK.format(code))
            seconds[name].append(float(printed[-2]))
            modules[name] = int(printed[-1])
    over = [float(_python(_OVER_TORCH)[0]) for _ in range(runs + 1)][1:]
    return {
        "runs": runs,
        "seconds": {
            name: {"median": statistics.median(values[1:]), "min": min(values[1:]), "max": max(values[1:])}
            for name, values in seconds.items()
        },
        "modules": modules,
        "over_torch_median": statistics.median(over),
    }


def table_of(result: dict[str, Any]) -> str:
    """For people."""
    rows = [
        (name, values["median"], values["min"], values["max"], result["modules"][name])
        for name, values in result["seconds"].items()
    ]
    over = f"all of minisbert over torch: median {result['over_torch_median'] * 1000:.0f} ms"
    return table([("seconds", "median", "min", "max", "modules"), *rows]) + "\n" + over
