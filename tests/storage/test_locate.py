"""Where a model is found: whole snapshots in the cache of the Hub, and those with holes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hub as hubs
import huggingface_hub
import pytest

from minisbert import SentenceTransformer
from minisbert.errors import ModelError
from minisbert.storage import locate

NAME = "acme/small"


class Cached:
    """A model on a Hub, of which a cache holds some files."""

    def __init__(self, model: Path, cache: Path, hub: hubs.Hub) -> None:
        self.model, self.hub = model, hub
        self.commit = hub.add(NAME, model).branches["main"]
        self.snapshot = cache / "models--acme--small" / "snapshots" / self.commit

    def put(self, *names: str) -> None:
        """Put files of the model into the cache; all by default."""
        refs = self.snapshot.parents[1] / "refs"
        refs.mkdir(parents=True, exist_ok=True)
        (refs / "main").write_text(self.commit)
        self.snapshot.mkdir(parents=True, exist_ok=True)
        for file in self.model.rglob("*"):
            name = file.relative_to(self.model)
            if file.is_file() and (not names or str(name) in names):
                (self.snapshot / name).parent.mkdir(exist_ok=True)
                shutil.copy(file, self.snapshot / name)

    def changed(self) -> None:
        """Let the Hub have what the folder of the model has now, in place of what it had."""
        self.hub.repositories[NAME].commits[self.commit] = hubs.read(self.model)


@pytest.fixture
def folder(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    return shutil.copytree(tiny("bert"), tmp_path / "model")


@pytest.fixture
def cached(folder: Path, tmp_path: Path, hub: hubs.Hub, monkeypatch: pytest.MonkeyPatch) -> Cached:
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "cache"))
    return Cached(folder, tmp_path / "cache", hub)


@pytest.fixture
def no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{hubs.closed_port()}")


def names(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def without(*patterns: str) -> Callable[[Path], set[str]]:
    return lambda folder: {name for name in names(folder) if not any(Path(name).match(pattern) for pattern in patterns)}


def test_a_whole_snapshot_asks_nobody(cached: Cached) -> None:
    cached.put()
    assert locate.find_model(NAME) == cached.snapshot
    assert cached.hub.asked() == []


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
def test_holes_are_filled_from_the_hub(hole: str, cached: Cached, folder: Path) -> None:
    cached.put(*HOLES[hole][0](folder))
    assert locate.find_model(NAME) == cached.snapshot
    assert names(cached.snapshot) == names(folder)
    assert cached.hub.asked()
    cached.hub.requests.clear()
    assert SentenceTransformer(NAME, device="cpu").encode("a cat").tolist() == (
        SentenceTransformer(folder, device="cpu").encode("a cat").tolist()
    )
    assert cached.hub.asked() == []  # for the model that is whole now


@pytest.mark.parametrize("hole", HOLES)
@pytest.mark.parametrize("forbidden", [True, False], ids=["local files only", "no connection"])
def test_holes_are_named_without_a_connection(
    hole: str, forbidden: bool, cached: Cached, folder: Path, no_connection: Callable[[], None]
) -> None:
    cached.put(*HOLES[hole][0](folder))
    no_connection()
    with pytest.raises(ModelError, match=f"without .*{HOLES[hole][1]}.*expected the whole model: ") as caught:
        SentenceTransformer(NAME, local_files_only=forbidden)
    assert str(cached.snapshot) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_without_modules_is_whole_once_the_hub_has_said_so(
    cached: Cached, folder: Path, no_connection: Callable[[], None]
) -> None:
    (folder / "modules.json").unlink()
    cached.changed()
    cached.put()
    with pytest.raises(ModelError, match=r"without modules\.json"):
        locate.find_model(NAME, local_files_only=True)
    assert locate.find_model(NAME) == cached.snapshot
    no_connection()
    assert locate.find_model(NAME) == cached.snapshot


def test_what_the_hub_does_not_have_is_for_the_loader_to_name(cached: Cached, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    cached.changed()
    with pytest.raises(ModelError, match="has no weights"):
        SentenceTransformer(NAME)


def test_all_parts_of_a_checkpoint_are_needed(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    assert locate.missing_files(folder) == ["model-00002-of-00002.safetensors"]


def test_what_is_no_file_after_the_download_is_named(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    cached.put()
    (cached.snapshot / "modules.json").unlink()
    (cached.snapshot / "modules.json").mkdir()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: "a path in the cache")
    with pytest.raises(ModelError, match=r"without modules\.json \(.*modules\.json is not a file, remove it"):
        locate.find_model(NAME)


def test_a_module_outside_the_snapshot_is_named(cached: Cached) -> None:
    cached.put()
    modules = [{"type": "Transformer", "path": ""}, {"type": "Pooling", "path": "../../x"}]
    (cached.snapshot / "modules.json").write_text(json.dumps(modules))
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


def test_cache_folder_comes_before_the_environment(cached: Cached, tmp_path: Path) -> None:
    cached.put()
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    elsewhere = tmp_path / "elsewhere" / cached.snapshot.relative_to(tmp_path / "cache")
    assert locate.find_model(NAME, cache_folder=tmp_path / "elsewhere") == elsewhere
    assert cached.hub.asked() == []
    assert locate.find_model(NAME) == cached.snapshot  # not in the environment's folder: asks
    assert cached.hub.asked()


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", locate.PACKAGED_MODEL])
def test_an_installed_package_comes_before_filling_holes(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--sentence-transformers--all-MiniLM-L6-v2" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(locate, "packaged_model", lambda: folder)
    assert locate.find_model(name, cache_folder=tmp_path) == folder


@pytest.mark.parametrize("revision", ["", 5, b"main", ["x"]])
def test_revisions_that_are_none(revision: Any, cached: Cached) -> None:
    cached.put()
    with pytest.raises(ModelError, match="got revision=.*; expected a branch, tag or commit"):
        locate.find_model(NAME, revision=revision)


@pytest.mark.parametrize("path", ["../../x", "/etc"])
def test_modules_outside_a_snapshot(path: str, cached: Cached, folder: Path) -> None:
    (folder / "modules.json").write_text(json.dumps([{"type": "Pooling", "path": path}]))
    cached.changed()
    cached.put()
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
