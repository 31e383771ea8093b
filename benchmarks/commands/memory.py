"""Peak memory of embedding many texts, each way in a fresh process, and whether it grows with their number."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import contenders
import numpy as np
import workloads
from machine import table

from minisbert import SentenceTransformer
from minisbert.storage.locate import packaged_model

TEXTS, QUICK_TEXTS = 100_000, 5_000
FEWER = 5  # the flatness is against so many times fewer texts
WAYS = (
    "minisbert, encode",
    "minisbert, out= memory map",
    "minisbert, encode_iter",
    "minisbert bf16",
    contenders.REFERENCE,
    contenders.ONNX,
)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start a process for each way and each number of texts."""
    most = QUICK_TEXTS if options.quick else TEXTS
    found: dict[str, dict[str, Any]] = {}
    for way in WAYS:
        found[way] = {str(count): _measured(way, count, options) for count in (most // FEWER, most)}
    return {"texts": [most // FEWER, most], "ways": found}


def table_of(result: dict[str, Any]) -> str:
    """For people."""
    few, most = map(str, result["texts"])
    header = ("MB", "loaded", f"peak, {int(few):,} texts", f"peak, {int(most):,} texts", "not of files", "grows by")
    rows: list[tuple[Any, ...]] = [header]
    for way, of in result["ways"].items():
        if "not_available" in of[most]:
            rows.append((way, f"not available: {of[most]['not_available']}", "", "", "", ""))
            continue
        small, large = (of[count] for count in (few, most))
        numbers = (
            large["loaded"],
            small["peak"],
            large["peak"],
            large["peak_anonymous"],
            large["peak"] - small["peak"],
        )
        rows.append((way, *(f"{number:,.0f}" for number in numbers)))
    return table(rows)


def _measured(way: str, count: int, options: argparse.Namespace) -> dict[str, Any]:
    return fresh("commands.memory", way, count, options.threads, options.data or "")


def fresh(module: str, *arguments: object) -> dict[str, Any]:
    """Run a module in a fresh process; return the JSON of its last line, or its last message as "not_available"."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    root = Path(__file__).parents[1]
    path = os.pathsep.join([str(root), str(root.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    if done.returncode:
        return {"not_available": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _embed(way: str, count: int, threads: int, data: Path | None) -> dict[str, Any]:
    """In the fresh process: MB after loading model and texts, at the peak, and of what is not a mapped file."""
    import torch

    torch.set_num_threads(threads)
    texts = workloads.many(data, count)
    embed = _way(way, threads)
    embed(texts[: contenders.BATCH_SIZE])
    loaded = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of reading the texts
    with watched(lambda: status("RssAnon"), every=0.02) as peak:  # what is no mapped file
        embed(texts)
    return {"loaded": loaded, "peak": status("VmHWM"), "peak_anonymous": peak[0]}


def _way(way: str, threads: int) -> Callable[[list[str]], object]:
    """Load a model, and return what embeds texts with it."""
    folder = packaged_model()
    assert folder is not None
    if way not in ("minisbert, out= memory map", "minisbert, encode_iter"):
        encode = contenders.load(way.replace(", encode", " fp32"), folder, threads)
        return lambda texts: encode(texts, contenders.BATCH_SIZE)
    model = SentenceTransformer(folder, device="cpu", truncation="count")

    def into_file(texts: list[str]) -> None:
        with tempfile.TemporaryDirectory() as place:
            shape = (len(texts), model.dimension(None))
            model.encode(texts, out=np.lib.format.open_memmap(Path(place) / "all.npy", "w+", np.float32, shape))

    def in_blocks(texts: list[str]) -> None:
        for _ in model.encode_iter(texts):
            pass

    return into_file if "out=" in way else in_blocks


@contextmanager
def watched(look: Callable[[], float], *, every: float) -> Iterator[list[float]]:
    """Keep the largest of what is seen by looking every so many seconds during a block of code, and at its end."""
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(every):
            peak[0] = max(peak[0], look())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        peak[0] = max(peak[0], look())


def status(field: str) -> float:
    """Return a field of this process in /proc, in MB. It starts afresh with the process, unlike getrusage's peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(round(int(line.split()[1]) * 1.024e-3, 1) for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    _, _way_asked, _count, _threads, _data = sys.argv
    print(json.dumps(_embed(_way_asked, int(_count), int(_threads), Path(_data) if _data else None)))
