"""Run every habit of tests/compat/idioms in one process, and print what each returned as a line of JSON.

python idiom_runs.py minisbert|reference MODEL_FOLDER PLACE [NAME ...]

A value is shown with its type: arrays and tensors with shape, dtype and numbers, objects as the name of their class,
an error as "raised" with the name of its class and its first line.
"""

from __future__ import annotations

import contextlib
import enum
import inspect
import io
import json
import random
import runpy
import sys
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

FILES = sorted((Path(__file__).parents[1] / "compat" / "idioms").glob("*.py"))


def described(value: Any) -> Any:
    """A value as JSON."""
    if isinstance(value, enum.Enum):
        return {"enum": value.name}
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return {type(value).__name__: value}
    if isinstance(value, np.ndarray | np.generic | torch.Tensor):
        numbers = value.detach().to_dense() if isinstance(value, torch.Tensor) else value
        if isinstance(numbers, torch.Tensor):
            numbers = numbers.double().numpy() if numbers.is_floating_point() else numbers.numpy()
        return {
            type(value).__name__: list(np.shape(value)),
            "dtype": str(value.dtype),
            "numbers": np.asarray(numbers).ravel().tolist(),
        }
    if isinstance(value, torch.Size | np.dtype | torch.dtype):
        return str(value)
    if hasattr(value, "column_names"):
        return {"columns": {name: list(value[name]) for name in value.column_names}}
    if isinstance(value, Mapping):
        return {"mapping": {str(key): described(one) for key, one in value.items()}}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [described(one) for one in value]}
    if isinstance(value, set | frozenset):
        return {"set": sorted(map(str, value))}
    return {"object": type(value).__name__}


def outcome(call: Any, folder: str, place: Path) -> Any:
    """What a habit returns or raises; its parameters say what it needs."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - what scripts do
    torch.manual_seed(0)
    given: dict[str, Any] = {}
    try:
        for name in inspect.signature(call).parameters:
            if name == "m":
                from sentence_transformers import SentenceTransformer

                given[name] = SentenceTransformer(folder, device="cpu")
            elif name in ("folder", "place"):
                given[name] = {"folder": folder, "place": place}[name]
        place.mkdir()
        return described(call(**given))
    except Exception as error:  # noqa: BLE001 - any error is a result
        line = next(iter(str(error).splitlines()), "")
        place_of = traceback.extract_tb(error.__traceback__)[-1]
        return {"raised": type(error).__name__, "said": line, "at": f"{Path(place_of.filename).name}:{place_of.lineno}"}


def main(library: str, folder: str, place: str, *names: str) -> None:
    """Run habits with a library."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if library == "minisbert":
        from minisbert import compat

        compat.install()
    number = 0
    for file in FILES:
        for name, call in runpy.run_path(str(file), run_name=f"idioms_{file.stem}")["IDIOMS"].items():
            if names and name not in names:
                continue
            number += 1
            with contextlib.redirect_stdout(io.StringIO()):
                found = outcome(call, folder, Path(place) / f"{library}{number}")
            sys.stdout.write(json.dumps({"file": file.stem, "name": name, "found": found}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
