"""Merges equal those of the reference with mergekit: bit for bit, but for slerp.

mergekit computes the lengths and the cosine of slerp in float32, in pieces that depend on which tensors have the same
shape; here they are computed in float64. The length of a million elements is off by 1e-5 there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from places import ROOT
from safetensors.torch import load_file, save_file

from minisbert import recipes

pytestmark = pytest.mark.downstream
LARGEST, LARGEST_OF_MANY = 1e-6, 2e-5  # differences in slerp, as shares of the largest element of a tensor
MANY = 1 << 20  # elements
NUMBERS: dict[str, list[dict[str, Any]]] = {
    "linear": [{}, {"weight": [0.6, 0.4, -0.1]}, {"weight": 0.3}],
    "slerp": [{}, {"t": 0.0}, {"t": 0.3}, {"t": 1.0}],
    "task_arithmetic": [{}, {"weight": [0.7, -0.4, 0.5]}],
    "ties": [
        {},
        {"weight": [1.0, 0.5, 0.25], "density": 0.5},
        {"density": [0.2, 0.013, 1.0]},
        {"density": 1e-6, "weight": [1.0, -1.0, 0.5]},
    ],
}


@pytest.fixture
def python() -> Path:
    folder = os.environ.get("MINISBERT_MERGES")
    if not folder:
        pytest.skip("MINISBERT_MERGES names no environment: python tests/downstream/merge_environment.py FOLDER")
    return Path(folder) / "bin" / "python"


def change(folder: Path, target: Path, seed: int, size: float) -> Path:
    """Copy a model with other weights: all but every fifth tensor, and half of the rows of the largest."""
    draw = torch.Generator().manual_seed(seed)
    shutil.copytree(folder, target)
    tensors = load_file(folder / "model.safetensors")
    largest = max(tensors, key=lambda name: tensors[name].numel())
    for number, (name, tensor) in enumerate(sorted(tensors.items())):
        if not tensor.is_floating_point() or number % 5 == 4:
            continue
        step = size * torch.randn(tensor.shape, generator=draw)
        if name == largest:
            step[::2] = 0
        tensors[name] = tensor + step
    zero = next(name for name in sorted(tensors) if name.endswith("query.bias") or name.endswith("q_lin.bias"))
    if seed == 1:
        tensors[zero] = torch.zeros_like(tensors[zero])
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.mark.parametrize(("name", "size"), [("bert", 0.05), ("bert", 1.0), ("distilbert", 0.02), ("minilm", 0.002)])
def test_merges_equal_the_reference(
    name: str, size: float, python: Path, model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    base = model_folder(name)
    models = [change(base, tmp_path / f"model-{seed}", seed, size) for seed in (1, 2, 3)]
    tasks: list[dict[str, Any]] = []
    for method, several in NUMBERS.items():
        for number, parameters in enumerate(several):
            given = [str(model) for model in models[: 2 if method == "slerp" else 3]]
            task = {"models": given, "method": method, "parameters": parameters}
            task["output"] = str(tmp_path / f"reference-{method}-{number}")
            tasks.append(task | ({"base_model": str(base)} if method in ("task_arithmetic", "ties") else {}))
    again = {"models": [str(base), *map(str, models)], "method": "ties", "parameters": {"density": 0.5}}
    tasks.append(again | {"base_model": str(base), "output": str(tmp_path / "reference-among")})
    swapped = {"models": [str(model) for model in models[:2]], "method": "slerp", "parameters": {"t": 0.3}}
    tasks.append(swapped | {"base_model": str(models[1]), "output": str(tmp_path / "reference-swapped")})
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    script = ROOT / "tests" / "downstream" / "reference_merges.py"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, script, tmp_path / "tasks.json"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for task in tasks:
        numbers = {"weights" if key == "weight" else key: value for key, value in task["parameters"].items()}
        folder = recipes.merge(
            task["models"], tmp_path / "ours", method=task["method"], base=task.get("base_model"), **numbers
        )
        ours, theirs = (load_file(Path(one) / "model.safetensors") for one in (folder, task["output"]))
        assert ours.keys() == theirs.keys()
        for key, tensor in ours.items():
            if task["method"] != "slerp":
                assert tensor.equal(theirs[key]), f"{task}: {key}"
            elif theirs[key].any():
                difference = (tensor - theirs[key]).abs().max() / theirs[key].abs().max()
                most = LARGEST if tensor.numel() < MANY else LARGEST_OF_MANY
                assert difference <= most, f"{task}: {key}: {difference}"
