"""Uploads of the reference load here, and ours load there, through one Hub on the loopback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from common import difference
from hub import Hub

from minisbert import SentenceTransformer
from minisbert.card import parse

pytestmark = pytest.mark.parity

TEXTS = ["a cat sat on the mat", "dog", "the sea is blue"]
NAMES = ["me/theirs", "me/ours"]
SCRIPT = """
import sys
import numpy as np
from sentence_transformers import SentenceTransformer

folder, out, *texts = sys.argv[1:]
model = SentenceTransformer(folder, device="cpu")
addresses = [
    model.push_to_hub("theirs", private=True),
    model.push_to_hub("me/theirs", exist_ok=True, revision="dev", commit_message="Mine"),
    model.push_to_hub("me/ours", exist_ok=True),
]
np.save(out, [model.encode(texts), SentenceTransformer("me/ours", revision="dev", device="cpu").encode(texts)])
print(*addresses)
"""


def test_uploads(tiny: Callable[[str], Path], hub: Hub, tmp_path: Path, compare: Callable[..., None]) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu")
    model.push_to_hub("ours", token="hf_me", private=True)
    model.push_to_hub("me/ours", token="hf_me", exist_ok=True, revision="dev", commit_message="Mine")
    ours = hub.repositories["me/ours"]
    card = ours.files()["README.md"]
    before = hub.asked()
    hub.requests.clear()
    out = tmp_path / "out.npy"
    command = [sys.executable, "-c", SCRIPT, str(tiny("bert")), str(out), *TEXTS]
    environment = {**hub.environment(tmp_path / "home"), "HF_TOKEN": "hf_me"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    theirs = hub.repositories["me/theirs"]
    addresses = done.stdout.split()
    assert addresses[0] == f"{hub.url}/me/theirs/commit/{theirs.branches['main']}"
    assert addresses[1] == f"{hub.url}/me/theirs/commit/{theirs.branches['dev']}"
    assert (theirs.private, theirs.messages[0]) == (ours.private, ours.messages[0])
    assert theirs.files("dev")["README.md"] == theirs.files()["README.md"]

    expected, loaded_there = np.load(out)
    loaded_here = SentenceTransformer("me/theirs", token="hf_me", device="cpu")
    compare("embeddings of models through the Hub", difference(loaded_there, expected), 1e-6)
    compare("embeddings of models through the Hub", difference(loaded_here.encode(TEXTS), expected), 1e-6)
    assert loaded_here.encode(TEXTS).tobytes() == model.encode(TEXTS).tobytes()

    assert set(theirs.files()) == set(ours.files())
    assert ours.files()["README.md"] == card  # which both keep
    assert [parse(text.decode()).usage.model_id for text in (theirs.files()["README.md"], card)] == NAMES
    posted = [{one for one in asked if one.startswith("POST /api")} for asked in (before, hub.asked())]
    assert {one.replace("ours", "theirs") for one in posted[0]} <= posted[1]
