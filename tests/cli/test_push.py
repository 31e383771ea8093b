"""`minisbert push` to a Hub on the loopback."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub import Hub, read

from minisbert.cli import main


def test_push(model: str, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    assert main(["push", model, "mine", "--private", "--message", "First"]) == 0
    mine = hub.repositories["me/mine"]
    assert capsys.readouterr().out == f"{hub.url}/me/mine/commit/{mine.branches['main']}\n"
    assert (mine.private, mine.messages) == (True, ["First"])
    assert {**mine.files(), ".gitattributes": b""} == {**read(Path(model)), ".gitattributes": b""}


def test_options(
    model: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = hub.add("me/mine")
    mine.commit({"README.md": b"by hand"})
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    assert main(["push", model, "me/mine", "--revision", "dev", "--exist-ok"]) == 0
    assert capsys.readouterr().out == f"{hub.url}/me/mine/commit/{mine.branches['dev']}\n"
    assert mine.messages == ["Add a sentence-embedding model"]
    monkeypatch.setenv("HF_TOKEN", "hf_you")
    assert main(["push", model, "me/mine", "--create-pr"]) == 0
    assert capsys.readouterr().out == f"{hub.url}/me/mine/discussions/1\n"
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    card = tmp_path / "card"
    card.mkdir()
    for name, data in read(Path(model)).items():
        (card / name).parent.mkdir(exist_ok=True)
        (card / name).write_bytes(data)
    (card / "README.md").write_text("new")
    assert main(["push", str(card), "me/mine", "--exist-ok"]) == 0
    assert mine.files()["README.md"] == b"by hand"
    assert main(["push", str(card), "me/mine", "--exist-ok", "--replace-card"]) == 0
    assert mine.files()["README.md"] == b"new"


@pytest.mark.parametrize(
    ("folder", "name", "message"),
    [
        ("nowhere", "me/mine", "got 'nowhere', which is not a folder; expected that of a saved model"),
        (".", "me/mine", "config.json"),
        ("MODEL", "a/b/c", "expected NAME or OWNER/NAME"),
        ("MODEL", "me/mine", "there is no token): log in with `hf auth login`"),
    ],
)
def test_wrong_use(
    folder: str,
    name: str,
    message: str,
    model: str,
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["push", model if folder == "MODEL" else folder, name]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert output.err.count("\n") == 1
    assert hub.asked() == []
