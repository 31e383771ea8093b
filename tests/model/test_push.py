"""Uploading a model to a Hub on the loopback: what is there afterwards, and each way in which it is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hub as hubs
import pytest
import torch
from hub import Fault, Hub

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.card import parse
from minisbert.errors import ConfigError, InputError, MinisbertError, ModelError

TEXTS = ["a cat sat on the mat", "dog", "the sea is blue"]
ROWS = [("a cat", "the cat sat", 1.0), ("a dog", "red sky", 0.25), ("one", "two three", 0.5), ("how", "why", 0.0)]


@pytest.fixture
def folder(tiny: Callable[[str], Path]) -> Path:
    return tiny("bert")


@pytest.fixture
def model(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(folder, device="cpu")


def change(model: SentenceTransformer) -> None:
    """Other weights than before."""
    with torch.no_grad():
        model.transformer.encoder.embeddings.word.weight.mul_(2)


def same(one: SentenceTransformer, other: SentenceTransformer) -> bool:
    return one.encode(TEXTS).tobytes() == other.encode(TEXTS).tobytes()


def refusal(model: SentenceTransformer, kind: type[MinisbertError], *given: Any, **options: Any) -> str:
    """The one line with which an upload ends."""
    with pytest.raises(kind) as caught:
        model.push_to_hub(*given, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- what is uploaded -----------------------------------------------------------------------------------------------


def test_a_trained_model_comes_back(model: SentenceTransformer, hub: Hub, tmp_path: Path) -> None:
    config = TrainingConfig(epochs=1, batch_size=2, learning_rate=1e-2)
    Trainer(model, ROWS, loss=losses.CosineSimilarityLoss(), config=config).train()
    address = model.push_to_hub("me/mine", token="hf_me")
    mine = hub.repositories["me/mine"]
    assert address == f"{hub.url}/me/mine/commit/{mine.branches['main']}"
    assert not mine.private
    assert mine.messages == ["Add new SentenceTransformer model"]
    loaded = SentenceTransformer("me/mine", device="cpu")
    assert same(loaded, model)
    model.save_pretrained(tmp_path / "saved", model_name="me/mine")
    assert hubs.read(tmp_path / "saved") == {
        name: data for name, data in mine.files().items() if name != ".gitattributes"
    }
    card = mine.files()["README.md"].decode()
    assert 'SentenceTransformer("me/mine")' in card
    assert parse(card).training_datasets[0].size == len(ROWS)


def test_the_owner_is_that_of_the_token(model: SentenceTransformer, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_you")
    model.push_to_hub("mine", private=True, commit_message="First")
    assert hub.repositories["you/mine"].private
    assert hub.repositories["you/mine"].messages == ["First"]


def test_the_same_files_make_no_commit(model: SentenceTransformer, hub: Hub) -> None:
    first = model.push_to_hub("me/mine", token="hf_me")
    assert model.push_to_hub("me/mine", token="hf_me", exist_ok=True) == first
    assert model.push_to_hub("me/mine", token="hf_you", create_pr=True) == first
    assert len(hub.repositories["me/mine"].messages) == 1


def test_what_was_uploaded_is_what_is_loaded(model: SentenceTransformer, hub: Hub) -> None:
    model.push_to_hub("me/mine", token="hf_me")
    assert same(SentenceTransformer("me/mine", device="cpu"), model)
    change(model)
    model.push_to_hub("me/mine", token="hf_me", exist_ok=True)
    assert same(SentenceTransformer("me/mine", device="cpu"), model)


def test_branches(model: SentenceTransformer, hub: Hub) -> None:
    model.push_to_hub("me/mine", token="hf_me")
    mine = hub.repositories["me/mine"]
    first = mine.branches["main"]
    for count in (2, 3):  # the branch is there the second time
        change(model)
        address = model.push_to_hub("me/mine", token="hf_me", revision="dev", exist_ok=True)
        assert address.endswith(mine.branches["dev"])
        assert len(mine.messages) == count
        assert same(SentenceTransformer("me/mine", revision="dev", device="cpu"), model)
    assert mine.branches["main"] == first
    assert not same(SentenceTransformer("me/mine", device="cpu"), model)


def test_pull_requests(model: SentenceTransformer, hub: Hub) -> None:
    model.push_to_hub("me/mine", token="hf_me")
    mine = hub.repositories["me/mine"]
    first = mine.branches["main"]
    change(model)
    assert model.push_to_hub("me/mine", token="hf_you", create_pr=True) == f"{hub.url}/me/mine/discussions/1"
    assert mine.branches["main"] == first
    assert mine.messages[-1].startswith("Add new SentenceTransformer model\n\nFiles of a SentenceTransformer:\n\n```\n")
    assert same(SentenceTransformer("me/mine", revision="refs/pr/1", device="cpu"), model)


def test_large_files_in_parts(model: SentenceTransformer, hub: Hub) -> None:
    hub.part = 50_000
    model.push_to_hub("me/mine", token="hf_me")
    assert len(hub.asked("PUT /upload/")) == 3
    assert same(SentenceTransformer("me/mine", device="cpu"), model)


# ---- cards ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", [None, "dev"])
def test_the_card_that_is_there_is_kept(revision: str | None, model: SentenceTransformer, hub: Hub) -> None:
    mine = hub.add("me/mine")
    mine.commit({"README.md": b"by hand"})
    model.push_to_hub("me/mine", token="hf_me", exist_ok=True, revision=revision)
    assert mine.files(revision or "main")["README.md"] == b"by hand"
    model.push_to_hub("me/mine", token="hf_me", exist_ok=True, revision=revision, replace_model_card=True)
    assert b"SentenceTransformer" in mine.files(revision or "main")["README.md"]


def test_a_folder_in_place_of_the_model(model: SentenceTransformer, folder: Path, hub: Hub, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "README.md").write_text("of the folder")
    change(model)
    model.push_to_hub("me/mine", token="hf_me", local_model_path=copy)
    mine = hub.repositories["me/mine"]
    assert mine.files()["README.md"] == b"of the folder"
    assert same(SentenceTransformer("me/mine", device="cpu"), SentenceTransformer(folder, device="cpu"))
    (copy / "README.md").write_text("changed")
    (copy / "notes.txt").write_text("new")
    (copy / ".cache").mkdir()
    (copy / ".cache" / "x").write_text("x")
    model.push_to_hub("me/mine", token="hf_me", local_model_path=str(copy), exist_ok=True)
    assert (mine.files()["README.md"], mine.files()["notes.txt"]) == (b"of the folder", b"new")
    assert ".cache/x" not in mine.files()
    model.push_to_hub("me/mine", token="hf_me", local_model_path=copy, exist_ok=True, replace_model_card=True)
    assert mine.files()["README.md"] == b"changed"


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_there_is_no_token(model: SentenceTransformer, hub: Hub) -> None:
    message = refusal(model, ModelError, "me/mine")
    assert message == (
        "me/mine cannot be uploaded (there is no token): log in with `hf auth login`, set HF_TOKEN, or pass token="
    )
    assert hub.asked() == []


WRONG: dict[str, tuple[type[MinisbertError], dict[str, Any], str]] = {
    "three parts": (ConfigError, {"repo_id": "a/b/c"}, "got repo_id='a/b/c'; expected NAME or OWNER/NAME"),
    "marks": (ConfigError, {"repo_id": "me/a--b"}, "expected NAME or OWNER/NAME"),
    "git": (ConfigError, {"repo_id": "me/a.git"}, "expected NAME or OWNER/NAME"),
    "empty": (ConfigError, {"repo_id": ""}, "expected NAME or OWNER/NAME"),
    "no text": (ConfigError, {"repo_id": 5}, "got repo_id=5; expected NAME or OWNER/NAME"),
    "long": (ConfigError, {"repo_id": "me/" + "a" * 97}, "expected NAME or OWNER/NAME"),
    "revision": (ConfigError, {"revision": ""}, "got revision=''; expected the name of a branch"),
    "revision and request": (ConfigError, {"revision": "dev", "create_pr": True}, "expected one of them"),
    "pickles": (ConfigError, {"safe_serialization": False}, "got safe_serialization=False; expected True"),
    "no files": (InputError, {"local_model_path": "EMPTY"}, "a folder without files; expected that of a saved model"),
    "no folder": (InputError, {"local_model_path": "/nowhere"}, "got '/nowhere', which is not a folder"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use(case: str, model: SentenceTransformer, hub: Hub, tmp_path: Path) -> None:
    kind, options, expected = WRONG[case]
    if options.get("local_model_path") == "EMPTY":
        (tmp_path / ".git").mkdir()
        (tmp_path / ".git" / "HEAD").write_text("x")
        options = {"local_model_path": tmp_path}
    assert expected in refusal(model, kind, **{"repo_id": "me/mine", "token": "hf_me", **options})
    assert hub.asked() == []


def test_a_repository_that_is_there(model: SentenceTransformer, hub: Hub) -> None:
    mine = hub.add("me/mine")
    message = refusal(model, ConfigError, "mine", token="hf_me")
    assert message.startswith("got 'mine', a repository that is there already; expected a new one: ")
    assert message.endswith("pass exist_ok=True to change it")
    assert len(mine.commits) == 1


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "of others": ({"token": "hf_you"}, "the token does not permit this: You don't have the rights to write to me)"),
    "of others, there": ({"token": "hf_you", "repo_id": "me/there", "exist_ok": True}, "does not permit this"),
    "bad token": ({"token": "hf_bad"}, "(the Hub does not accept the token): take a valid one: log in"),
    "bad branch": ({"revision": "refs/pr/7"}, "the Hub answers with status 400: Invalid reference for a branch"),
    "private": ({"token": "hf_you", "repo_id": "me/hidden", "create_pr": True}, "does not permit this"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_the_hub(case: str, model: SentenceTransformer, hub: Hub) -> None:
    hub.add("me/there")
    hub.add("me/hidden", private=True)
    options, expected = REFUSED[case]
    message = refusal(model, ModelError, **{"repo_id": "me/mine", "token": "hf_me", **options})
    assert expected in message
    assert " cannot be uploaded (" in message


@pytest.mark.parametrize("where", ["/api/repos/create", "GET /api/models", "/preupload/", "/commit/"])
def test_faults_of_the_server(
    where: str, model: SentenceTransformer, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    mine = hub.add("me/mine")
    hub.faults.append(Fault(where, 500, times=99))
    assert "the Hub answers with status 500): try again later" in refusal(
        model, ModelError, "me/mine", token="hf_me", exist_ok=True
    )
    assert list(mine.files()) == [".gitattributes"]
    hub.faults.clear()
    model.push_to_hub("me/mine", token="hf_me", exist_ok=True)
    assert same(SentenceTransformer("me/mine", device="cpu"), model)


def test_an_upload_is_tried_again(model: SentenceTransformer, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.faults.append(Fault("PUT /upload/", 503, times=2))
    model.push_to_hub("me/mine", token="hf_me")
    assert len(hub.asked("PUT /upload/")) == 3
    assert same(SentenceTransformer("me/mine", device="cpu"), model)


def test_a_card_that_the_hub_does_not_take(model: SentenceTransformer, folder: Path, hub: Hub, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "README.md").write_text("---\nlicense: [1]\n---\n")
    message = refusal(model, ModelError, "me/mine", token="hf_me", local_model_path=copy)
    assert '"license" must be a string' in message


def test_a_model_that_cannot_be_saved(model: SentenceTransformer, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise InputError("cannot write")

    monkeypatch.setattr(model, "save_pretrained", full)
    assert refusal(model, InputError, "me/mine", token="hf_me") == "cannot write"
    assert list(hub.repositories["me/mine"].files()) == [".gitattributes"]


def test_no_connection(model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    monkeypatch.setattr("time.sleep", naps.append)
    hubs.use(monkeypatch, f"http://127.0.0.1:{hubs.closed_port()}", tmp_path / "hub-cache")
    assert "cannot be reached" in refusal(model, ModelError, "me/mine", token="hf_me")
    hubs.go_offline(monkeypatch)
    assert "HF_HUB_OFFLINE is set" in refusal(model, ModelError, "me/mine", token="hf_me")
    assert not naps


def test_tokens_that_are_none(model: SentenceTransformer, hub: Hub) -> None:
    assert "take a valid one" in refusal(model, ModelError, "me/mine", token="hf_\u00e4")
    assert "got a token of type int" in refusal(model, ConfigError, "me/mine", token=3)
    assert not hub.repositories
