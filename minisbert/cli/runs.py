"""Facts of training runs, their checkpoints and token stores, for `minisbert inspect`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..storage.files import is_file
from .options import shortened

# Of checkpoints and token stores; written out, since their code imports torch.
_MANIFEST, _STORE, _UNFINISHED = "checkpoint.json", "header.json", "progress.json"
_DECIDING = ("batch_size", "learning_rate", "epochs", "max_steps", "seed", "precision", "replay")


def kind_of(folder: Path) -> str:
    """Tell a folder apart by its files: "checkpoint", "store", "stores", "run", or "model"."""
    if is_file(folder / _MANIFEST):
        return "checkpoint"
    if is_file(folder / _STORE) or is_file(folder / _UNFINISHED):
        return "store"
    if not is_file(folder / "modules.json") and not is_file(folder / "config.json"):
        if any(folder.glob("checkpoint-*")):
            return "run"
        if any(folder.glob(f"*/{_STORE}")) or any(folder.glob(f"*/{_UNFINISHED}")):
            return "stores"
    return "model"


def checkpoint_facts(folder: Path) -> dict[str, Any]:
    """Read the state of a run that a checkpoint has, after checking that none of its files is damaged.

    Raises:
        InputError: one is.
    """
    from ..training.checkpoint import Checkpoint
    from ..training.history import TrainingHistory

    number = folder.name.removeprefix("checkpoint-")
    state = Checkpoint(folder, int(number) if number.isdecimal() else -1).state()
    history = TrainingHistory(**state["history"])
    losses = [entry["loss"] for entry in history.entries if "loss" in entry]
    epochs = [entry["epoch"] for entry in history.entries]
    config: Mapping[str, Any] = state["config"]
    return {
        "step": state["step"],
        "epoch": epochs[-1] if epochs else None,
        "loss": losses[-1] if losses else None,
        "seconds": history.seconds,
        "best_metric": history.best_metric,
        "best_step": history.best_step,
        "settings": {name: config[name] for name in _DECIDING if config.get(name) is not None},
    }


def checkpoint_lines(facts: Mapping[str, Any]) -> list[str]:
    """Describe a checkpoint."""
    from ..training.progress import duration

    step = f"step {facts['step']:,}"
    if facts["loss"] is not None:
        step += f", last logged loss {facts['loss']:.4g} at epoch {facts['epoch']:.2f}"
    lines = [f"{step}, after {duration(facts['seconds'])}"]
    if facts["best_metric"] is not None:
        lines.append(f"best metric {facts['best_metric']:.4f} at step {facts['best_step']:,}")
    lines.append(", ".join(f"{name} {value}" for name, value in facts["settings"].items()))
    return [*lines, "complete: go on with --resume"]


def run_facts(folder: Path) -> dict[str, Any]:
    """List the checkpoints of a run whose model is not saved yet, and which of them is whole."""
    from ..training.checkpoint import Checkpoint, newest_valid

    newest, damages = newest_valid(folder)
    names = [checkpoint.folder.name for checkpoint in Checkpoint.all_in(folder)]
    return {"checkpoints": names, "newest": newest and newest.folder.name, "damages": damages}


def run_lines(facts: Mapping[str, Any]) -> list[str]:
    """Describe a run."""
    newest = f"go on from {facts['newest']} with --resume" if facts["newest"] else "none is whole"
    return [f"no model yet; {', '.join(facts['checkpoints'])}: {newest}", *facts["damages"]]


def store_facts(folder: Path) -> dict[str, Any]:
    """Read what a token store says of itself; its rows are not read.

    Raises:
        InputError: its header is damaged, or a file is missing or cut off.
    """
    from ..data.token_store import check_sizes, read_header

    if not is_file(folder / _STORE):
        return {"complete": False}
    header = read_header(folder)
    check_sizes(folder, header)
    made = header["made_of"]
    return {
        "complete": True,
        "source": made["source"],
        "rows": header["rows"],
        "columns": header["columns"],
        "tokens": header["tokens"],
        "truncated": header["truncated"],
        "label": made["label"]["name"],
        "labels": made["label"]["type"] if made["label"]["name"] else None,
        "classes": header["classes"],
        "maximum_length": made["maximum length"],
        "prompts": made["prompts"],
        "tokenizer": made["tokenizer"],
        "bytes": sum(file["bytes"] for file in header["files"].values()),
    }


def store_lines(facts: Mapping[str, Any], size: str) -> list[str]:
    """Describe a token store of so many bytes, in words."""
    if not facts["complete"]:
        return ["not complete: run the same command again to go on with it"]
    texts = facts["rows"] * len(facts["columns"])
    mean = facts["tokens"] / texts if texts else math.nan
    lines = [
        f"{facts['rows']:,} rows of {shortened(facts['source'], 100)}, {size}",
        f"texts in {', '.join(facts['columns'])}: {facts['tokens']:,} tokens, {mean:.1f} on average, "
        f"{facts['truncated']:,} texts cut to {facts['maximum_length']}",
    ]
    if facts["label"]:
        classes = f", {len(facts['classes'])} classes" if facts["classes"] else ""
        lines.append(f"labels in {facts['label']}: {facts['labels']}{classes}")
    lines += [f"prompt of {name}: {text!r}" for name, text in facts["prompts"].items() if text]
    return [*lines, f"tokenizer {facts['tokenizer'][:12]}"]
