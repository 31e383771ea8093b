"""Where a model is found: whole snapshots in the cache of the Hub, and those with holes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from minisbert import SentenceTransformer
from minisbert.errors import ModelError
from minisbert.storage import locate

COMMIT = "a" * 40
NAME = "acme/small"


class Hub:
    """A hub with one model, in place of the functions of huggingface_hub that minisbert calls."""

    def __init__(self, model: Path, cache: Path) -> None:
        self.model, self.snapshot = model, cache / "models--acme--small" / "snapshots" / COMMIT
        self.reachable, self.requests = True, 0

    def put(self, *names: str) -> None:
        """Put files of the model into the cache; all by default."""
        refs = self.snapshot.parents[1] / "refs"
        refs.mkdir(parents=True, exist_ok=True)
        (refs / "main").write_text(COMMIT)
        self.snapshot.mkdir(parents=True, exist_ok=True)
        for file in self.model.rglob("*"):
            name = file.relative_to(self.model)
            if file.is_file() and (not names or str(name) in names):
                (self.snapshot / name).parent.mkdir(exist_ok=True)
                shutil.copy(file, self.snapshot / name)

    def snapshot_download(self, name: str, *, local_files_only: bool = False, **_: Any) -> str:
        assert name == NAME
        if not local_files_only:
            self.requests += 1
            if self.reachable:
                self.put()
        if not self.snapshot.is_dir():
            raise LocalEntryNotFoundError("not in the cache")
        return str(self.snapshot)  # as the real one does without a connection

    def hf_hub_download(self, name: str, file: str, **_: Any) -> str:
        assert name == NAME
        if not self.reachable:
            raise LocalEntryNotFoundError("cannot be reached")
        absent = self.snapshot.parents[1] / ".no_exist" / COMMIT / file
        absent.parent.mkdir(parents=True, exist_ok=True)
        absent.touch()
        raise EntryNotFoundError("no such file")


@pytest.fixture
def folder(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    return shutil.copytree(tiny("bert"), tmp_path / "model")


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(folder, tmp_path / "cache")
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.hf_hub_download)
    return hub


def names(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def without(*patterns: str) -> Callable[[Path], set[str]]:
    return lambda folder: {name for name in names(folder) if not any(Path(name).match(pattern) for pattern in patterns)}


def test_a_whole_snapshot_asks_nobody(hub: Hub) -> None:
    hub.put()
    assert locate.find_model(NAME) == hub.snapshot
    assert hub.requests == 0


HOLES = {
    "after AutoModel and AutoTokenizer": (
        without("modules.json", "config_*", "sentence_*", "*/config.json"),
        "modules",
    ),
    "after AutoConfig": (lambda _: {"config.json"}, "modules.json"),
    "weights": (without("*.safetensors"), "model.safetensors"),
    "tokenizer": (without("tokenizer.json"), "tokenizer.json"),
    "pooling": (without("1_Pooling/config.json"), "1_Pooling/config.json"),
}


@pytest.mark.parametrize("hole", HOLES)
def test_holes_are_filled_from_the_hub(hole: str, hub: Hub, folder: Path) -> None:
    hub.put(*HOLES[hole][0](folder))
    assert locate.find_model(NAME) == hub.snapshot
    assert names(hub.snapshot) == names(folder)
    assert SentenceTransformer(NAME, device="cpu").encode("a cat").tolist() == (
        SentenceTransformer(folder, device="cpu").encode("a cat").tolist()
    )
    assert hub.requests == 1  # and none for the model that is whole now


@pytest.mark.parametrize("hole", HOLES)
@pytest.mark.parametrize("forbidden", [True, False], ids=["local files only", "no connection"])
def test_holes_are_named_without_a_connection(hole: str, forbidden: bool, hub: Hub, folder: Path) -> None:
    hub.put(*HOLES[hole][0](folder))
    hub.reachable = False
    with pytest.raises(
        ModelError, match=f"without .*{HOLES[hole][1]}.*expected the whole model: load it once"
    ) as caught:
        SentenceTransformer(NAME, local_files_only=forbidden)
    assert str(hub.snapshot) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_without_modules_is_whole_once_the_hub_has_said_so(hub: Hub, folder: Path) -> None:
    (folder / "modules.json").unlink()
    hub.put()
    with pytest.raises(ModelError, match=r"without modules\.json"):
        locate.find_model(NAME, local_files_only=True)
    assert locate.find_model(NAME) == hub.snapshot
    hub.reachable = False
    assert locate.find_model(NAME) == hub.snapshot
    assert hub.requests == 1


def test_what_the_hub_does_not_have_is_for_the_loader_to_name(hub: Hub, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        SentenceTransformer(NAME)


def test_all_parts_of_a_checkpoint_are_needed(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    assert locate.missing_files(folder) == ["model-00002-of-00002.safetensors"]


def test_what_is_no_file_after_the_download_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put()
    (hub.snapshot / "modules.json").unlink()
    (hub.snapshot / "modules.json").mkdir()
    hub.reachable = False
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: "a path in the cache")
    with pytest.raises(ModelError, match=r"without modules\.json \(.*modules\.json is not a file, remove it"):
        locate.find_model(NAME)


def test_a_module_outside_the_snapshot_is_named(hub: Hub) -> None:
    hub.put()
    modules = [{"type": "Transformer", "path": ""}, {"type": "Pooling", "path": "../../x"}]
    (hub.snapshot / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match=r"got module path '\.\./\.\./x' in .*; expected a folder inside the model"):
        locate.find_model(NAME)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"revision": ""}, "got revision=''; expected a branch, tag or commit"),
        ({"revision": 5}, "got revision=5; expected a branch, tag or commit"),
        ({"cache_folder": 5}, "got cache_folder=5; expected a folder"),
        ({"cache_folder": "c" * 5000}, "neither a folder nor in the cache"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        locate.find_model(NAME, local_files_only=True, **options)
    assert "\n" not in str(caught.value)


def test_a_reference_that_is_no_text(tmp_path: Path) -> None:
    refs = tmp_path / "models--acme--small" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match="neither a folder nor in the cache"):
        locate.find_model(NAME, cache_folder=tmp_path, local_files_only=True)


def test_cache_folder_comes_before_the_environment(hub: Hub, tmp_path: Path) -> None:
    hub.put()
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    hub.snapshot = tmp_path / "elsewhere" / hub.snapshot.relative_to(tmp_path / "cache")
    assert locate.find_model(NAME, cache_folder=tmp_path / "elsewhere") == hub.snapshot
    assert hub.requests == 0
    assert locate.find_model(NAME) == hub.snapshot  # not in the environment's folder: asks
    assert hub.requests == 1


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", locate.PACKAGED_MODEL])
def test_an_installed_package_comes_before_filling_holes(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--sentence-transformers--all-MiniLM-L6-v2" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(locate, "packaged_model", lambda: folder)
    assert locate.find_model(name, cache_folder=tmp_path) == folder


@pytest.mark.parametrize("revision", ["", 5, b"main", ["x"]])
def test_revisions_that_are_none(revision: Any, hub: Hub) -> None:
    hub.put()
    with pytest.raises(ModelError, match="got revision=.*; expected a branch, tag or commit"):
        locate.find_model(NAME, revision=revision)


@pytest.mark.parametrize("path", ["../../x", "/etc"])
def test_modules_outside_a_snapshot(path: str, hub: Hub, folder: Path) -> None:
    (folder / "modules.json").write_text(json.dumps([{"type": "Pooling", "path": path}]))
    hub.put()
    with pytest.raises(ModelError, match="inside the model"):
        locate.find_model(NAME)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("all-mpnet-base-v2", "sentence-transformers/all-mpnet-base-v2"),
        ("bert-base-uncased", "bert-base-uncased"),
        ("Distilroberta-base", "Distilroberta-base"),
        ("intfloat/e5-small", "intfloat/e5-small"),
    ],
)
def test_names_without_an_owner(name: str, expected: str) -> None:
    assert locate.repository_name(name) == expected
