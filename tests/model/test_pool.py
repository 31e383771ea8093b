"""Embedding in several processes: the same results, and a clear end when a process fails."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from places import ROOT

from minisbert import SentenceTransformer
from minisbert.errors import ConfigError, InputError, PoolError
from minisbert.model import pool
from minisbert.model.encoding import EncodeOptions, collect
from minisbert.model.pool import EncodingPool, PoolRun

TEXTS = [" ".join(tiny_models.WORDS[i % 7 : i % 7 + 1 + i % 11]) for i in range(60)]
INPUTS: list[Any] = [*TEXTS, ("a cat", "the dog"), ""]


@pytest.fixture(scope="module")
def model(tiny: Callable[[str], Path]) -> SentenceTransformer:
    return SentenceTransformer(tiny("bert"), device="cpu", prompts={"query": "how "}, truncation="count")


@pytest.fixture(scope="module")
def workers(model: SentenceTransformer) -> Iterator[EncodingPool]:
    workers = model.start_multi_process_pool(["cpu", "cpu"])
    yield workers
    model.stop_multi_process_pool(workers)


def close(a: Any, b: Any) -> None:
    """Same kinds, types and shapes, and values within 1e-6."""
    assert type(a) is type(b)
    if isinstance(a, list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            close(one, other)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for name, value in a.items():
            close(value, b[name])
    else:
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if isinstance(a, torch.Tensor):
            assert not a.is_inference()
            a, b = a.numpy(), b.numpy()
        assert np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0) <= (
            1e-6 if a.dtype == np.float32 else 1
        )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunk_size": 7},
        {"chunk_size": 1000},
        {"convert_to_tensor": True},
        {"convert_to_numpy": False},
        {"output_value": "token_embeddings"},
        {"output_value": None},
        {"precision": "int8", "chunk_size": 7},
        {"precision": "ubinary", "convert_to_tensor": True},
        {"precision": "uint8", "convert_to_numpy": False},
        {"prompt": "what is ", "truncate_dim": 9, "normalize_embeddings": True},
        {"batch_size": 30},
    ],
    ids=str,
)
def test_same_as_in_one_process(options: dict[str, Any], model: SentenceTransformer, workers: EncodingPool) -> None:
    here = {name: value for name, value in options.items() if name != "chunk_size"}
    close(model.encode(INPUTS, pool=workers, **options), model.encode(INPUTS, **here))


def test_one_text_and_none(model: SentenceTransformer, workers: EncodingPool) -> None:
    close(model.encode("a cat", pool=workers), model.encode("a cat"))
    close(model.encode([], pool=workers), model.encode([]))
    close(model.encode([], pool=workers, convert_to_numpy=False), [])
    close(model.encode_query(TEXTS, pool=workers), model.encode_query(TEXTS))
    out = np.empty((len(TEXTS), 32), np.float32)
    assert model.encode(TEXTS, pool=workers, out=out) is out
    close(out, model.encode(TEXTS))


def test_quantized_over_all_texts(model: SentenceTransformer, workers: EncodingPool) -> None:
    """Ranges of single chunks would move most values by many levels."""
    got = model.encode(TEXTS, pool=workers, precision="int8", chunk_size=3).astype(int)
    assert np.abs(got - model.encode(TEXTS, precision="int8")).max() <= 1


def test_cut_texts_are_counted(model: SentenceTransformer, workers: EncodingPool) -> None:
    before = model.truncated_texts
    model.encode([*TEXTS, "cat " * 60, "dog " * 60], pool=workers, chunk_size=4)
    assert model.truncated_texts == before + 2


def test_an_error_names_the_text_and_leaves_the_pool_usable(model: SentenceTransformer, workers: EncodingPool) -> None:
    with pytest.raises(InputError, match=r"texts\[60\] holds the lone surrogate"):
        model.encode([*TEXTS, "\ud800", "\ud800"], pool=workers, chunk_size=1)
    close(model.encode(TEXTS, pool=workers), model.encode(TEXTS))


def test_an_unexpected_error_comes_back_too(model: SentenceTransformer, workers: EncodingPool) -> None:
    run = PoolRun(workers, list(TEXTS), None)  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute"):
        collect(run, torch.empty(60, 32))
    close(model.encode(TEXTS, pool=workers), model.encode(TEXTS))


def test_a_changed_model_needs_a_new_pool(
    model: SentenceTransformer, workers: EncodingPool, tiny: Callable[[str], Path]
) -> None:
    model.max_seq_length = 20
    with pytest.raises(PoolError, match="before its weights or settings changed"):
        model.encode(TEXTS, pool=workers)
    model.max_seq_length = 48
    assert model.encode(TEXTS, pool=workers).shape == (60, 32)
    with pytest.raises(PoolError, match="got a pool of another model"):
        SentenceTransformer(tiny("bert"), device="cpu").encode(TEXTS, pool=workers)


def test_wrong_use(model: SentenceTransformer, workers: EncodingPool) -> None:
    with pytest.raises(ConfigError, match="got a pool and device='cpu'"):
        model.encode(TEXTS, pool=workers, device="cpu")
    with pytest.raises(ConfigError, match="got pool=3; expected one of processes: pass start_multi_process_pool"):
        model.encode("a cat", pool=3)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="got chunk_size=0; expected a whole number of at least 1"):
        model.encode(TEXTS, pool=workers, chunk_size=0)
    with pytest.raises(ConfigError, match="got no devices"):
        model.encode(TEXTS, device=[])
    with pytest.raises(ConfigError, match="got device='nowhere'"):
        model.start_multi_process_pool(["cpu", "nowhere"])


class HeavyModules:
    """Arrives in another process as a text: the names of heavy modules that are loaded there."""

    def __reduce__(self) -> Any:
        names = ("transformers", "scipy", "sentence_transformers", "pandas", "sympy")
        return eval, (f"' '.join(['the', *(name for name in {names} if name in __import__('sys').modules)])",)


def test_workers_load_no_heavy_module(model: SentenceTransformer, workers: EncodingPool) -> None:
    run = PoolRun(workers, [HeavyModules()], EncodeOptions())  # type: ignore[list-item]
    got = collect(run, torch.empty(1, 32))
    close(got, model.encode(["the"], convert_to_tensor=True))


def test_killed_and_interrupted_pools_end(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    with EncodingPool(model, ["cpu", "cpu"]) as workers:
        processes = [worker.process.pid for worker in workers.workers]
        os.kill(processes[0], signal.SIGKILL)
        with pytest.raises(PoolError, match=r"ended with exit code -9; expected nobody to kill it: start a new pool"):
            model.encode(TEXTS, pool=workers, chunk_size=1)
        with pytest.raises(PoolError, match="got a pool that is closed"):
            model.encode(TEXTS, pool=workers)
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)

    def interrupted(pipes: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pool, "wait", interrupted)
    workers = EncodingPool(model, ["cpu"])
    with pytest.raises(KeyboardInterrupt):
        model.encode(TEXTS, pool=workers)
    with pytest.raises(PoolError, match="closed"):
        model.encode(TEXTS, pool=workers)


class Leaves:
    """Ends the process that it arrives in."""

    def __reduce__(self) -> Any:
        return os._exit, (7,)


def test_a_worker_that_leaves_ends_the_call(model: SentenceTransformer) -> None:
    with EncodingPool(model, ["cpu", "cpu"]) as workers:
        processes = [worker.process for worker in workers.workers]
        with pytest.raises(PoolError, match=r"ended with exit code 7; expected it to keep running: start a new pool"):
            collect(PoolRun(workers, [*TEXTS, Leaves()], EncodeOptions(), chunk_size=7), torch.empty(61, 32))
        for process in processes:
            with pytest.raises(ValueError, match="process object is closed"):
                process.is_alive()
        with pytest.raises(PoolError, match="got a pool that is closed"):
            model.encode(TEXTS, pool=workers)


def test_a_worker_that_is_killed_while_it_starts(model: SentenceTransformer) -> None:
    others = set(multiprocessing.active_children())

    def kill_one() -> None:
        while len(started := set(multiprocessing.active_children()) - others) < 2:
            time.sleep(0.001)
        started.pop().kill()

    with ThreadPoolExecutor(1) as threads:
        job = threads.submit(kill_one)
        with pytest.raises(PoolError, match=r"ended with exit code -9; expected nobody to kill it: start a new pool"):
            EncodingPool(model, ["cpu", "cpu"])
        job.result()
    assert set(multiprocessing.active_children()) == others


def test_a_forked_process_needs_its_own_pool(
    model: SentenceTransformer, workers: EncodingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool.os, "getpid", lambda: 1)
    with pytest.raises(PoolError, match="got a pool of the process that this one was forked from"):
        model.encode(TEXTS, pool=workers)


def test_a_script_leaves_nothing_behind(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """A pool made for one call, and one that is never closed: both end without a word."""
    script = tmp_path / "script.py"
    script.write_text(
        "from minisbert import SentenceTransformer\n"
        "if __name__ == '__main__':\n"
        f"    model = SentenceTransformer({str(tiny('bert'))!r}, device='cpu')\n"
        "    print(model.encode(['a cat', 'a dog'], device=['cpu', 'cpu']).shape)\n"
        "    pool = model.start_multi_process_pool(['cpu'])\n"
        "    print(model.encode(['a cat', 'a dog'], pool=pool).shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", script], capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "(2, 32)\n(2, 32)\n", "")


def test_a_script_without_its_guard_gets_a_hint(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import minisbert\n"
        f"model = minisbert.SentenceTransformer({str(tiny('bert'))!r}, device='cpu')\n"
        "model.start_multi_process_pool(['cpu'])\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "under `if __name__ == '__main__':`" in done.stderr


def test_threads_take_turns(model: SentenceTransformer) -> None:
    texts = [f"{word} {number}" for number in range(60) for word in ("cat", "dog")]
    expected = [model.encode(texts), model.encode(texts[::-1])]
    with EncodingPool(model, ["cpu", "cpu"]) as workers, ThreadPoolExecutor(2) as threads:
        for _ in range(3):
            jobs = [threads.submit(model.encode, part, pool=workers, chunk_size=7) for part in (texts, texts[::-1])]
            for job, wanted in zip(jobs, expected, strict=True):
                assert np.abs(job.result() - wanted).max() <= 1e-6
