"""What importing and the first embedding cost, in fresh processes, interleaved."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from typing import Any

from machine import table

_CLOCK = "import sys, time; start = time.perf_counter(); {}; print(time.perf_counter() - start, len(sys.modules))"
_ALL = "from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses, evaluation, util"
_OVER_TORCH = "import time, torch; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
_MODEL = "from minisbert.storage.locate import packaged_model; name = str(packaged_model())"
_FIRST = "from minisbert import SentenceTransformer as S; S('all-MiniLM-L6-v2', device='cpu').encode('a')"
CASES = {
    "import torch": "import torch",
    "import torch, minisbert": "import torch, minisbert",
    "import torch, all of minisbert": f"import torch; {_ALL}",
    "import sentence_transformers": "import sentence_transformers",
    "first embedding, minisbert": f"{_MODEL}; from minisbert import SentenceTransformer as S; "
    "S(name, device='cpu').encode('a')",
    "first embedding, reference": f"{_MODEL}; from sentence_transformers import SentenceTransformer as S; "
    "S(name, device='cpu').encode('a')",
}


def _python(code: str) -> list[str]:
    # Bytecode is kept, as pip leaves it when it installs; a checkout would be compiled in each process.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=kept).stdout.split()


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
    over, first = (
        statistics.median(float(_python(_OVER_TORCH.format(code))[0]) for _ in range(runs)) for code in (_ALL, _FIRST)
    )
    return {
        "runs": runs,
        "seconds": {
            name: {"median": statistics.median(values[1:]), "min": min(values[1:]), "max": max(values[1:])}
            for name, values in seconds.items()
        },
        "modules": modules,
        "over_torch_median": over,
        "first_over_torch_median": first,
    }


def table_of(result: dict[str, Any]) -> str:
    """For people."""
    rows = [
        (name, values["median"], values["min"], values["max"], result["modules"][name])
        for name, values in result["seconds"].items()
    ]
    over = (
        f"over torch, medians: all of minisbert {result['over_torch_median'] * 1000:.0f} ms, "
        f"the first embedding {result['first_over_torch_median'] * 1000:.0f} ms"
    )
    return table([("seconds", "median", "min", "max", "modules"), *rows]) + "\n" + over
