"""Most of what the library does, once, and what it left changed: `python every_use.py MODEL OUTPUT`, to JSON.

It is a process of its own, so that what a test session did before hides nothing.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import io
import json
import locale
import logging
import multiprocessing
import os
import random
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

SOCKETS: list[str] = []
WRITTEN: set[str] = set()


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Let no socket be opened, but those that processes of one machine speak through; note files that are written."""
    if event == "open" and isinstance(arguments[0], (str, bytes)) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        WRITTEN.add(os.path.abspath(os.fsdecode(arguments[0])))  # noqa: PTH100  # a Path makes events of its own
    if not event.startswith("socket."):
        return
    family = arguments[1] if event == "socket.__new__" else getattr(arguments[0], "family", None)
    if family == socket.AF_UNIX:
        return
    SOCKETS.append(event)
    raise RuntimeError(f"{event} of {arguments[1:]}")


def digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def state() -> dict[str, str]:
    """Everything of the process that a library could change and a program could notice."""
    numbers = np.random.get_state()  # noqa: NPY002  # whose state is at stake
    mask = os.umask(0o22)
    os.umask(mask)
    loggers = {name: logger for name, logger in logging.root.manager.loggerDict.items() if name in LOGGERS}
    values: dict[str, object] = {
        "threads of torch": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "random numbers": (digest(random.getstate()), digest([*map(str, numbers), numbers[1].tobytes()])),
        "random numbers of torch": digest(torch.get_rng_state().tolist()),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "autocast": (
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
            torch.is_autocast_cache_enabled(),
        ),
        "defaults of torch": (torch.get_default_dtype(), torch.get_default_device()),
        "determinism": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        ),
        "products": (torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32),
        "oneDNN": (torch.backends.mkldnn.enabled, torch.backends.mkldnn.allow_tf32),
        "cuDNN": [
            getattr(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic", "allow_tf32")
        ],
        "denormals": torch.tensor(1e-310, dtype=torch.float64).mul(1).item(),
        "sharing": (torch.multiprocessing.get_sharing_strategy(), multiprocessing.get_start_method(allow_none=True)),
        "warnings": (warnings.filters, warnings.showwarning, warnings.formatwarning),
        "signals": [(number, signal.getsignal(number)) for number in signal.valid_signals()],
        "blocked signals": signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "environment": sorted(os.environ.items()),
        "locale": locale.setlocale(locale.LC_ALL),
        "logging": (
            logging.root,
            logging.root.handlers,
            logging.root.manager.disable,
            [(name, logger, getattr(logger, "handlers", None)) for name, logger in sorted(loggers.items())],
        ),
        "hooks": (sys.excepthook, sys.displayhook, threading.excepthook, sys.gettrace(), sys.getprofile()),
        "streams": (sys.stdout, sys.stderr, sys.stdin),
        "paths": (sys.path, Path.cwd(), mask, sys.meta_path, sys.path_hooks),
        "limits": (sys.getrecursionlimit(), sys.getswitchinterval(), socket.getdefaulttimeout()),
        "garbage": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "numpy": (np.geterr(), np.get_printoptions()),
        "running threads": sorted({thread.name for thread in threading.enumerate()} - THREADS_OF_OTHERS),
        "children": multiprocessing.active_children(),
    }
    return {name: repr(value) for name, value in values.items()}


LOGGERS = set(logging.root.manager.loggerDict)
CHANGED: dict[str, list[str]] = {}
# tqdm looks after its bars in a thread, and multiprocessing keeps one that hands tensors to other processes.
THREADS_OF_OTHERS = {"tqdm_monitor", "Thread-1 (_serve)"}


def use_other_packages() -> None:
    """Let them change what they do change when they are used first: filters of warnings, an environment variable."""
    importlib.import_module("scipy.stats")
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)]).step()
    multiprocessing.get_start_method()  # decides on one, as the start of any process does


@contextlib.contextmanager
def unchanged(name: str) -> Iterator[None]:
    """Note what is different after a block of code."""
    before = state()
    yield
    after = state()
    CHANGED[name] = [f"{what}: {before[what]} -> {after[what]}" for what in before if before[what] != after[what]]


def use(folder: Path, output: Path) -> None:
    with unchanged("import"):
        from minisbert import SentenceTransformer, Trainer, TrainingConfig, evaluation, losses, util
        from minisbert.cli import main
    from tiny_models import WORDS

    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=draw.choice((1, 4, 20)))) for _ in range(40)]
    pairs = [{"a": a, "b": b, "label": i % 5 / 4} for i, (a, b) in enumerate(pairwise(texts))]
    with unchanged("load"):
        model = SentenceTransformer(folder, device="cpu", truncation="count")
    with unchanged("load the packaged model"):
        SentenceTransformer("all-MiniLM-L6-v2", device="cpu")
    with unchanged("encode"):
        model.encode(texts)
        model.encode("one")
        model.encode(texts, precision="int8", show_progress_bar=False)
        list(model.encode_iter(texts, block_size=7))
        model.encode(texts, out=np.lib.format.open_memmap(output / "out.npy", "w+", np.float32, shape=(40, 32)))
    with unchanged("encode in processes"):
        model.encode(texts, device=["cpu"])
    with unchanged("similarity and search"):
        embeddings = model.encode(texts)
        model.similarity(embeddings, embeddings)
        util.semantic_search(embeddings, embeddings, top_k=2)
        util.paraphrase_mining(model, texts)
    evaluator = evaluation.EmbeddingSimilarityEvaluator(texts[1:], texts[:-1], [row["label"] for row in pairs])
    with unchanged("evaluate"):
        model.evaluate(evaluator, output / "evaluation")
    common = {"epochs": 1, "batch_size": 8, "log_every": 2}
    for name, settings in {"packed": {"save_every": 2}, "replay": {"replay": "6.2"}}.items():
        with unchanged(f"train, {name}"):
            Trainer(
                model,
                pairs,
                loss=losses.CosineSimilarityLoss(model),
                config=TrainingConfig(**common, **settings),  # type: ignore[arg-type]
                evaluator=evaluator,
                output_dir=output / name,
            ).train()
    with unchanged("fit"):
        rows = [{"a": row["a"], "b": row["b"]} for row in pairs]
        model.fit(
            [(rows, losses.MultipleNegativesRankingLoss(model))],
            warmup_steps=0, output_path=output / "fit", show_progress_bar=False,
        )  # fmt: skip
    with unchanged("save"):
        model.save_pretrained(output / "saved")
    table = output / "pairs.tsv"
    table.write_text("".join(f"{a}\t{b}\t{c}\n" for a, b, c in [("a", "b", "label"), *map(dict.values, pairs)]))
    lines = output / "lines.txt"
    lines.write_text("\n".join(texts))
    saved = str(output / "saved")
    commands = (
        ["encode", saved, str(lines), "--output", str(output / "lines.npy")],
        ["evaluate", saved, "--sts", str(table), "--json"],
        ["similarity", saved, "a cat", "a dog"],
        ["inspect", saved],
        ["kernels"],
        f"train --model {saved} --data {table} --loss cosine --epochs 1 --output {output / 'trained'}".split(),
        ["nonsense"],
    )
    for command in commands:
        with unchanged(f"minisbert {command[0]}"):
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                try:
                    status = main(command)
                except SystemExit as exit_:
                    status = exit_.code  # type: ignore[assignment]
        if status != (2 if command == ["nonsense"] else 0):
            raise AssertionError(f"{command}: {status}: {said.getvalue()}")
    # What is looked for would be seen.
    with unchanged("a seed"):
        torch.manual_seed(0)
    with contextlib.suppress(RuntimeError):
        socket.create_connection(("localhost", 9))


if __name__ == "__main__":
    use_other_packages()
    sys.addaudithook(watch)
    use(Path(sys.argv[1]), Path(sys.argv[2]))
    print(json.dumps({"changed": CHANGED, "sockets": SOCKETS, "written": sorted(WRITTEN)}))
