"""One model used by many threads and processes, and over many texts."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from places import ROOT

from minisbert import SentenceTransformer

_THREADS = 8
_SECONDS = 120  # until what hangs is given up


@pytest.fixture(params=["with_native", "without_native"])
def either(request: pytest.FixtureRequest) -> None:
    """The C++ kernels, or PyTorch alone."""
    request.getfixturevalue(request.param)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def run(code: str, *arguments: object, **environment: str) -> str:
    """What a script of its own prints; it may neither fail nor complain."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=_SECONDS,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model whose heads are wide enough for the C++ kernels."""
    return tiny_models.build(tmp_path_factory.mktemp("wide") / "bert", "bert", layers=1, dim=128)


@pytest.mark.usefixtures("two_threads")
def test_threads_get_what_one_gets_alone(either: None, wide: Path) -> None:
    draw = random.Random(0)
    calls = [
        [" ".join(draw.choices(tiny_models.WORDS, k=draw.choice((1, 2, 5, 30)))) for _ in range(texts)]
        for texts in (1, 2, 3, 150, 1, 40, 7, 300)
    ]
    alone = SentenceTransformer(wide, device="cpu")
    wanted = [alone.encode(texts) for texts in calls]
    similar = alone.similarity(wanted[3], wanted[3])
    shared = SentenceTransformer(wide, device="cpu")  # which no thread has used yet
    begin, done = threading.Barrier(_THREADS + 1), threading.Event()

    def embed(first: int) -> bool:
        begin.wait()
        turns = [(first + turn) % len(calls) for turn in range(2 * len(calls))]
        return all(np.array_equal(shared.encode(calls[turn]), wanted[turn]) for turn in turns)

    def compare() -> bool:
        begin.wait()
        same = [torch.equal(shared.similarity(wanted[3], wanted[3]), similar)]
        while not done.is_set():
            same.append(torch.equal(shared.similarity(wanted[3], wanted[3]), similar))
        return all(same)

    with ThreadPoolExecutor(_THREADS + 1) as threads:
        compared = threads.submit(compare)
        try:
            assert list(threads.map(embed, range(_THREADS))) == [True] * _THREADS
        finally:
            done.set()
        assert compared.result()


_FORKS = """
import multiprocessing, os, signal, sys, threading
import numpy as np
import torch
from minisbert import SentenceTransformer

torch.set_num_threads(2)
model = SentenceTransformer(sys.argv[1], device="cpu")
texts = ["the cat sat on the mat " * (1 + row % 7) for row in range(300)]
wanted = model.encode(texts)
similar = model.similarity(wanted, wanted)

def again(threads):
    signal.alarm(60)  # ends what hangs
    same = [np.array_equal(model.encode(texts), wanted) for _ in range(2)]
    same.append(torch.equal(model.similarity(wanted, wanted), similar))
    other = threading.Thread(target=lambda: same.append(np.array_equal(model.encode(texts), wanted)))
    other.start()
    other.join()
    sys.exit(0 if same == [True] * 4 and torch.get_num_threads() == threads else f"{same}, {torch.get_num_threads()}")

if (child := os.fork()) == 0:
    again(1)
print(os.waitpid(child, 0)[1])

def fork(threads):
    process = multiprocessing.get_context("fork").Process(target=again, args=(threads,))
    process.start()
    process.join()
    print(process.exitcode)

fork(1)
fresh = threading.Thread(target=fork, args=(2,))  # it has no threads to lose
fresh.start()
fresh.join()
print(torch.get_num_threads(), np.array_equal(model.encode(texts), wanted))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_embeds(either: None, wide: Path) -> None:
    """Threads that computed before the fork are not in the child: to wait for them would never end."""
    # Newer Pythons warn of each fork of a process with threads.
    warned = "import warnings; warnings.simplefilter('ignore', DeprecationWarning)"
    assert run(f"{warned}\n{_FORKS}", wide) == "0\n0\n0\n2 True\n"


_MANY = """
import sys, threading, time
import numpy as np
from minisbert import SentenceTransformer

def held():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) // 1024

def most(work):
    seen, end = [], threading.Event()

    def watch():
        while not end.wait(0.01):
            seen.append(held())

    watching = threading.Thread(target=watch)
    watching.start()
    work()
    end.set()
    watching.join()
    return max(seen)

def stream(count):
    assert sum(len(block) for block in model.encode_iter(map(text, range(count)), block_size=2_048)) == count

def into_file():
    model.encode(texts, out=np.lib.format.open_memmap(out, "w+", np.float32, shape=(len(texts), 128)))

model, out = SentenceTransformer(sys.argv[1], device="cpu"), sys.argv[2]
words = "the cat sat on a mat and why not".split()
text = lambda row: f"{words[row % 9]} {words[row // 9 % 9]}"
for _ in range(4):  # until the allocator has what it keeps for itself
    stream(5_000)
print(-most(lambda: stream(5_000)) + most(lambda: stream(60_000)))
texts = [text(row) for row in range(17_000)]
few = most(into_file)
texts = [text(row) for row in range(60_000)]
print(most(into_file) - few)
print(np.array_equal(np.load(out)[-5:], model.encode(texts[-5:])))
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is told elsewhere")
def test_many_texts_take_no_more_memory(wide: Path, tmp_path: Path) -> None:
    """60,000 embeddings alone are 29 MiB, and texts and tokens add to that; what is held must not grow with them."""
    streamed, mapped, same = run(_MANY, wide, tmp_path / "out.npy", OMP_NUM_THREADS="1").split()
    assert same == "True"
    assert int(streamed) < 26
    assert int(mapped) < 26
