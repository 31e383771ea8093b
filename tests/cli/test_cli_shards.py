"""`minisbert encode` into a folder of parts: the same bytes in any number of shards, and again after a failure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minisbert import SentenceTransformer
from minisbert.cli import main, shards

TEXTS = [f"the {word} sat on mat {number}" for number, word in enumerate("cat dog sky sea tree".split() * 5)]
BLOCK = 7  # rows of a part; the last of four has 4


@pytest.fixture(scope="module")
def model(tiny: Callable[[str], Path]) -> str:
    return str(tiny("bert"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(TEXTS)))
    return file


def encode(model: str, data: Path, output: Path, *options: str) -> int:
    column = [] if data.suffix == ".txt" else ["--column", "text"]
    size = ["--block-rows", str(BLOCK)]
    return main(["encode", model, str(data), "--output", str(output), "--device", "cpu", *column, *size, *options])


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("part-*")}


@pytest.mark.parametrize("form", shards.FORMATS)
def test_parts_do_not_depend_on_the_number_of_shards(form: str, model: str, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    made = {}
    for count in (1, 3, 7):
        for number in reversed(range(1, count + 1)):
            assert encode(model, data, tmp_path / f"of-{count}", "--format", form, "--shard", f"{number}/{count}") == 0
        made[count] = parts(tmp_path / f"of-{count}")
    assert made[1] == made[3] == made[7]
    assert sorted(made[1]) == [f"part-{number:06d}.{form}" for number in range(4)]
    expected = [SentenceTransformer(model, device="cpu").encode(TEXTS[at : at + BLOCK]) for at in range(0, 25, BLOCK)]
    for number, values in enumerate(expected):
        np.testing.assert_array_equal(read(tmp_path / "of-1" / f"part-{number:06d}.{form}"), values)


def read(part: Path) -> Any:
    if part.suffix == ".npy":
        return np.load(part)
    if part.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return load_file(part)["embeddings"]
    from pyarrow import parquet

    found = parquet.read_table(part)["embedding"].combine_chunks()
    return found.values.to_numpy().reshape(len(found), -1)


def test_rows_are_numbered_and_nulls_stay(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = [None, *TEXTS[:8], None]
    file = tmp_path / "texts.parquet"
    parquet.write_table(pa.table({"text": texts}), file)
    assert encode(model, file, tmp_path / "out", "--format", "parquet") == 0
    table = pa.concat_tables(parquet.read_table(part) for part in sorted((tmp_path / "out").glob("part-*")))
    assert table["row"].to_pylist() == list(range(10))
    assert str(table.schema.field("embedding").type) == "fixed_size_list<element: float>[32]"
    assert [value is None for value in table["embedding"].to_pylist()] == [text is None for text in texts]
    assert encode(model, file, tmp_path / "rows", "--format", "npy") == 2
    assert "got no text in row 0 of" in capsys.readouterr().err


def test_whole_parts_are_kept(model: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends in the middle leaves whole parts, and the next one makes those that are missing."""
    whole, out, calls = tmp_path / "whole", tmp_path / "out", []
    assert encode(model, data, whole, "--format", "npy") == 0
    plain = SentenceTransformer.encode

    def failing(self: SentenceTransformer, texts: list[str], **options: Any) -> Any:
        calls.append(len(texts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(self, texts, **options)

    monkeypatch.setattr(SentenceTransformer, "encode", failing)
    assert encode(model, data, out, "--format", "npy") == 130
    assert sorted(parts(out)) == ["part-000000.npy", "part-000001.npy"]
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith("part-")) == ["parts.json"]
    assert encode(model, data, out, "--format", "npy") == 0
    assert calls == [7, 7, 7, 7, 4]
    assert parts(out) == parts(whole)


def test_lines(model: str, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(TEXTS[:9]) + "\n")
    assert encode(model, file, tmp_path / "out", "--format", "npy", "--precision", "ubinary") == 0
    expected = SentenceTransformer(model, device="cpu").encode(TEXTS[BLOCK:9], precision="ubinary")
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "part-000001.npy"), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--normalize"], "has parts with embeddings"),
        (["--block-rows", "8"], "has parts with source"),
        (["--format", "npy"], "has parts with format"),
        (["--precision", "int8"], "got --precision int8 and a folder"),
        (["--column", "words"], "got --column words; expected one of those of"),
        (["--column", "id"], "got 0 in row 0 of"),
    ],
)
def test_parts_of_another_run(
    options: list[str], message: str, model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    assert encode(model, data, tmp_path / "out", "--format", "parquet") == 0
    before, new = parts(tmp_path / "out"), options[:1] == ["--column"]
    assert encode(model, data, tmp_path / ("new" if new else "out"), "--shard", "1/1", *options) == 2
    assert message in capsys.readouterr().err
    assert parts(tmp_path / "out") == before


@pytest.mark.parametrize("text", ["0/16", "17/16", "3", "a/b", "-1/2", "1/0", "1/2/3"])
def test_shards_that_are_none(text: str, model: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        encode(model, data, tmp_path / "out", "--shard", text)
    assert ended.value.code == 2


def test_a_file_is_no_folder(model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert encode(model, data, data, "--shard", "1/1") == 2
    assert "a file; expected a folder" in capsys.readouterr().err
