"""Small changes to model folders, for tests of what may stand in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from minisbert import SentenceTransformer


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def edit(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file, which is made if there is none."""
    old = read(path) if path.exists() else {}
    path.write_text(json.dumps({**old, **changes}))


def load(folder: Path, **options: Any) -> Any:
    return SentenceTransformer(folder, device="cpu", truncation="count", **options)


def add_module(folder: Path, kind: str, config: dict[str, Any], tensors: dict[str, torch.Tensor] | None = None) -> None:
    """Put a module behind the pooling, in place of what is there."""
    entries = read(folder / "modules.json")
    entries[2] = {"idx": 2, "name": "2", "path": f"2_{kind}", "type": f"sentence_transformers.models.{kind}"}
    (folder / "modules.json").write_text(json.dumps(entries))
    place = folder / f"2_{kind}"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(config))
    if tensors is not None:
        torch.save(tensors, place / "pytorch_model.bin")


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder and those below it, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
