"""`minisbert encode` into a folder: the same parts whoever writes them, none twice, and one line for what is wrong."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from places import ROOT
from safetensors.numpy import load_file

from minisbert import SentenceTransformer
from minisbert.cli import _parser, main, shards
from minisbert.cli import encode as one_file
from minisbert.cli import options as options_of_commands
from minisbert.cli.encode import run_encode
from minisbert.data.streaming import count_rows, read_blocks
from minisbert.similarity import quantize_embeddings

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

TEXTS = [" ".join(["the cat sat", "a red dog", "sky"][: 1 + i % 3]) + " one" * (i % 5) for i in range(23)]
IDS = [f"id-{i}" for i in range(23)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """23 rows in row groups of 7, which blocks of 4 do not respect."""
    path = tmp_path / "in.parquet"
    days = pyarrow.array(range(23), pyarrow.date32())
    parquet.write_table(pyarrow.table({"id": IDS, "text": TEXTS, "day": days}), path, row_group_size=7)
    return path


@pytest.fixture
def encode(model: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `encode` with blocks of 4 rows: what it says on standard error."""

    def run(source: Path, output: Path, *options: Any, status: int = 0) -> str:
        arguments = ["encode", model, source, "--output", output, *options]
        try:
            got: Any = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            got = stop.code
        captured = capsys.readouterr()
        assert (got, captured.out) == (status, ""), captured.err
        return captured.err

    return run


BLOCKS = ("--block-rows", 4, "--column", "text")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# ---- the parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["parquet", "npy", "safetensors"])
def test_the_bytes_do_not_depend_on_the_number_of_shards(
    form: str, encode: Callable[..., str], source: Path, tmp_path: Path
) -> None:
    for count in (1, 3, 7):
        for shard in reversed(range(1, count + 1)):
            encode(source, tmp_path / f"of-{count}", *BLOCKS, "--format", form, "--shard", f"{shard}/{count}")
    whole = contents(tmp_path / "of-1")
    assert list(whole) == ["_manifest.json", *(f"part-{block:06}.{form}" for block in range(6))]
    assert contents(tmp_path / "of-3") == contents(tmp_path / "of-7") == whole


def test_parquet_parts(encode: Callable[..., str], model: str, source: Path, tmp_path: Path) -> None:
    err = encode(source, tmp_path / "out", *BLOCKS, "--format", "parquet", "--keep", "day,id")
    assert err == f"wrote 6 of 6 parts to {tmp_path / 'out'}\n"
    table = parquet.read_table(tmp_path / "out")
    assert table.schema.field("embedding").type == pyarrow.list_(pyarrow.field("element", pyarrow.float32()), 32)
    assert table.column_names == ["row", "day", "id", "embedding"]
    assert table.schema.field("day").type == pyarrow.date32()
    assert (table["row"].to_pylist(), table["id"].to_pylist()) == (list(range(23)), IDS)
    encoder = SentenceTransformer(model, device="cpu")
    expected = np.concatenate([encoder.encode(TEXTS[start : start + 4]) for start in range(0, 23, 4)])
    got = table["embedding"].combine_chunks().values.to_numpy().reshape(23, 32)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("precision", "dtype", "dim"), [("float16", np.float16, 32), ("binary", np.int8, 4), ("ubinary", np.uint8, 4)]
)
def test_number_formats(
    precision: str, dtype: Any, dim: int, encode: Callable[..., str], model: str, source: Path, tmp_path: Path
) -> None:
    options = [*BLOCKS, "--precision", precision, "--normalize"]
    for form in ("npy", "safetensors", "parquet"):
        encode(source, tmp_path / form, *options, "--format", form, "--shard", "1/6")
    name = "part-000000"
    array = np.load(tmp_path / "npy" / f"{name}.npy")
    expected = SentenceTransformer(model, device="cpu").encode(TEXTS[:4], normalize_embeddings=True)
    if precision == "float16":
        np.testing.assert_array_equal(array, expected.astype(np.float16))
    assert (array.dtype, array.shape) == (dtype, (4, dim))
    np.testing.assert_array_equal(load_file(tmp_path / "safetensors" / f"{name}.safetensors")["embeddings"], array)
    column = parquet.read_table(tmp_path / "parquet" / f"{name}.parquet")["embedding"].combine_chunks()
    np.testing.assert_array_equal(column.values.to_numpy(zero_copy_only=False).reshape(4, dim), array)


def test_a_text_that_is_missing(encode: Callable[..., str], tmp_path: Path) -> None:
    path, texts = tmp_path / "in.parquet", ["a cat", "", "a dog", "the sky", "one", None, None, None, None]
    parquet.write_table(pyarrow.table({"text": texts}), path)
    encode(path, tmp_path / "out", *BLOCKS, "--format", "parquet")
    got = parquet.read_table(tmp_path / "out")["embedding"].to_pylist()
    assert [one is None for one in got] == [text is None for text in texts]
    err = encode(path, tmp_path / "npy", *BLOCKS, "--format", "npy", status=2)
    assert f"row 5 of {path}: column text holds None" in err
    assert [name for name in contents(tmp_path / "npy") if name != "_manifest.json"] == ["part-000000.npy"]


def written(path: Path, kind: str) -> None:
    rows = list(zip(IDS, TEXTS, strict=True))
    if kind.startswith("txt"):
        content = "\n".join(TEXTS)
    elif kind.startswith("jsonl"):
        content = "\n\n".join(json.dumps({"id": one, "text": text}) for one, text in rows)
    else:
        content = "\n".join(("," if kind.startswith("csv") else "\t").join(row) for row in [("id", "text"), *rows])
    raw = content.encode()
    path.write_bytes(gzip.compress(raw) if kind.endswith("gz") else raw)


@pytest.mark.parametrize("kind", ["txt", "txt.gz", "jsonl", "jsonl.gz", "tsv", "tsv.gz", "csv", "csv.gz"])
def test_other_files_give_the_same_embeddings(
    kind: str, encode: Callable[..., str], source: Path, tmp_path: Path
) -> None:
    written(tmp_path / f"in.{kind}", kind)
    column = [] if kind.startswith("txt") else ["--column", "text"]
    options = ["--block-rows", 4, "--format", "npy", "--shard", "2/3"]
    encode(tmp_path / f"in.{kind}", tmp_path / "out", *column, *options)
    encode(source, tmp_path / "expected", "--column", "text", *options)
    got, expected = contents(tmp_path / "out"), contents(tmp_path / "expected")
    assert list(got) == ["_manifest.json", "part-000002.npy", "part-000003.npy"]
    assert {**got, "_manifest.json": b""} == {**expected, "_manifest.json": b""}


def test_kept_values_of_json_are_texts(encode: Callable[..., str], tmp_path: Path) -> None:
    path, values = tmp_path / "in.jsonl", [1, "1", None, [2, "é"], True]
    path.write_text("".join(json.dumps({"text": "a cat", "v": value}) + "\n" for value in values))
    encode(path, tmp_path / "out", *BLOCKS, "--format", "parquet", "--keep", "v")
    assert parquet.read_table(tmp_path / "out")["v"].to_pylist() == ["1", "1", None, '[2, "é"]', "true"]


@pytest.mark.parametrize("kind", ["jsonl", "tsv", "csv", "parquet", "json"])
@pytest.mark.parametrize(("first", "last"), [(0, None), (5, 14), (7, 7), (20, 99), (30, None)])
def test_rows_are_skipped(kind: str, first: int, last: int | None, source: Path, tmp_path: Path) -> None:
    path = tmp_path / f"in.{kind}"
    if kind == "json":
        path.write_text(json.dumps([{"text": text} for text in TEXTS]))
    elif kind != "parquet":
        written(path, kind)
    blocks = [block.table for block in read_blocks(path, 3, first=first, last=last)]
    texts = [table.columns["text"] for table in blocks]
    wanted = TEXTS[first:last]
    assert texts == [wanted[start : start + 3] for start in range(0, len(wanted), 3)]
    assert count_rows(path) == 23
    if kind in ("parquet", "json"):
        assert [table.first for table in blocks] == [first + 3 * number for number in range(len(blocks))]


# ---- going on -------------------------------------------------------------------------------------------------------


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are embedded."""
    seen: list[str] = []
    whole = SentenceTransformer.encode

    def encode(self: SentenceTransformer, texts: list[str], **options: Any) -> Any:
        seen.extend(texts)
        return whole(self, texts, **options)

    monkeypatch.setattr(SentenceTransformer, "encode", encode)
    return seen


@pytest.mark.parametrize("form", ["parquet", "npy", "safetensors"])
def test_only_what_is_missing_or_damaged_is_embedded(
    form: str, encode: Callable[..., str], source: Path, tmp_path: Path, embedded: list[str]
) -> None:
    out = tmp_path / "out"
    encode(source, out, *BLOCKS, "--format", form)
    whole = contents(out)
    cut = out / f"part-000003.{form}"
    cut.write_bytes(cut.read_bytes()[:-20])
    (out / f"part-000001.{form}").unlink()
    (out / f".part-000001.{form}-0123456789ab").write_text("half")  # of a process that was killed
    embedded.clear()
    assert encode(source, out, *BLOCKS, "--format", form) == f"wrote 2 of 6 parts to {out}, 4 were there\n"
    assert embedded == TEXTS[4:8] + TEXTS[12:16]
    assert contents(out) == whole


def test_an_interrupt_leaves_whole_parts(
    encode: Callable[..., str], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded: list[str]
) -> None:
    save, calls = np.save, []

    def interrupted(file: Any, values: Any) -> None:
        calls.append(file.write(b"half") and file.seek(0))
        if len(calls) == 3:
            raise KeyboardInterrupt
        save(file, values)

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", interrupted)
        err = encode(source, tmp_path / "out", *BLOCKS, "--format", "npy", status=130)
    assert err.splitlines()[0] == "4 of 6 parts are left: run the same command again to write them"
    assert list(contents(tmp_path / "out")) == ["_manifest.json", "part-000000.npy", "part-000001.npy"]
    embedded.clear()
    encode(source, tmp_path / "out", *BLOCKS, "--format", "npy")
    assert embedded == TEXTS[8:]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX systems")
def test_a_process_that_is_killed(encode: Callable[..., str], model: str, tmp_path: Path, embedded: list[str]) -> None:
    source, out = tmp_path / "in.txt", tmp_path / "out"
    source.write_text("\n".join(f"{text} {i}" for i in range(60) for text in TEXTS))
    options = ["--block-rows", "4", "--format", "npy"]
    process = subprocess.Popen(
        [sys.executable, "-m", "minisbert", "encode", model, source, "--output", out, *options, "--device", "cpu"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )
    while len(list(out.glob("part-*"))) < 5 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = {name: content for name, content in contents(out).items() if name[0] != "."}
    assert 6 <= len(before) < 346
    err = encode(source, out, *options)
    assert f"wrote {346 - len(before)} of 345 parts" in err
    assert len(embedded) == 23 * 60 - 4 * (len(before) - 1)
    after = contents(out)
    assert len(after) == 346
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("options", [["--block-rows", 1000, "--format", "npy"], [], ["--precision", "int8"]], ids=str)
def test_memory_does_not_grow_with_the_file(
    options: list[Any], encode: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        SentenceTransformer, "encode", lambda self, texts, **options: np.ones((len(texts), 32), np.float32)
    )
    for module in (one_file, shards):
        monkeypatch.setattr(module, "BLOCK_ROWS", 1000)
    peaks = []
    for blocks in (3, 30):
        path = tmp_path / f"{blocks}.jsonl"
        path.write_text("".join(json.dumps({"text": f"{row} " + "x" * 500}) + "\n" for row in range(1000 * blocks)))
        tracemalloc.start()
        encode(path, tmp_path / str(blocks), "--column", "text", *options)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


# ---- one file -------------------------------------------------------------------------------------------------------


@pytest.fixture
def blocks_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (one_file, shards):
        monkeypatch.setattr(module, "BLOCK_ROWS", 4)


@pytest.mark.usefixtures("blocks_of_four")
@pytest.mark.parametrize("precision", ["float32", "float16", "int8", "uint8", "binary", "ubinary"])
def test_one_file_is_written_in_blocks(precision: str, encode: Callable[..., str], model: str, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("\n".join(TEXTS))
    err = encode(tmp_path / "in.txt", tmp_path / "out.npy", "--precision", precision)
    encoder = SentenceTransformer(model, device="cpu")
    expected = np.concatenate([encoder.encode(TEXTS[start : start + 4]) for start in range(0, 23, 4)])
    expected = expected.astype("float16") if precision == "float16" else quantize_embeddings(expected, precision)
    got = np.load(tmp_path / "out.npy")
    np.testing.assert_array_equal(got, expected)
    assert err == f"wrote {tmp_path / 'out.npy'}: 23 x {expected.shape[1]} {expected.dtype}\n"
    np.save(tmp_path / "saved.npy", expected)
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "saved.npy").read_bytes()
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} >= {"in.txt", "out.npy", "saved.npy"}
    assert not list(tmp_path.glob(".*"))


@pytest.mark.usefixtures("blocks_of_four")
def test_a_late_error_is_said_before_the_model_is_loaded(
    encode: Callable[..., str], tmp_path: Path, embedded: list[str]
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.npy"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*TEXTS, None]))
    out.write_text("kept")
    err = encode(source, out, "--column", "text", status=2)
    assert "in.jsonl, line 24: " in err
    assert err.count("\n") == 1
    assert (embedded, out.read_text()) == ([], "kept")


@pytest.mark.usefixtures("blocks_of_four")
@pytest.mark.parametrize("changed", [TEXTS[:9], TEXTS * 2])
def test_a_file_that_changes_between_its_two_readings(
    changed: list[str], encode: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "in.txt", tmp_path / "out.npy"
    source.write_text("\n".join(TEXTS))
    out.write_text("kept")
    load = one_file.load_model

    def changing(options: Any) -> SentenceTransformer:
        source.write_text("\n".join(changed))
        return load(options)

    monkeypatch.setattr(one_file, "load_model", changing)
    assert "in.txt changed while it was read" in encode(source, out, status=2)
    assert out.read_text() == "kept"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.usefixtures("blocks_of_four")
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_full_disk(
    precision: str, encode: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "in.txt").write_text("\n".join(TEXTS))
    monkeypatch.setattr(np, "ascontiguousarray", full)
    err = encode(tmp_path / "in.txt", tmp_path / "out.npy", "--precision", precision, status=2)
    assert f"cannot write {tmp_path / 'out.npy'} (No space left on device)" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out.npy").exists()
    assert not list(tmp_path.glob(".*"))


# ---- what is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0/16", "17/16", "3", "1/0", "-1/2", "1/2/3", "a/b", "1 / 2", "", "٣/٤", "1.0/2"])
def test_bad_shards(text: str, encode: Callable[..., str], source: Path, tmp_path: Path) -> None:
    err = encode(source, tmp_path / "out", f"--shard={text}", status=2)
    assert f"--shard: got {text!r}; expected K/N with K from 1 to N, such as 3/16" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--precision", "int8", "--format", "npy"], ["--precision int8", "float16, binary"]),
        (["--keep", "id", "--format", "npy"], ["--keep with --format npy", "parquet"]),
        (["--keep", "row", "--format", "parquet"], ["--keep row"]),
        (["--keep", "none", "--shard", "1/2"], ["--keep none", "id, text, day", "in.parquet"]),
        (["--column", "none", "--shard", "1/2"], ["--column none", "in.parquet"]),
        (["--keep", "id"], ["--keep for one file", "--format"]),
        (["--block-rows", "4"], ["--block-rows for one file", "--format"]),
        (["--block-rows", "0", "--shard", "1/2"], ["--block-rows", "'0'"]),
        (["--prompt-name", "none", "--shard", "1/2"], ["'none'"]),
    ],
)
def test_options_that_cannot_work(
    options: list[str], parts: list[str], encode: Callable[..., str], source: Path, tmp_path: Path
) -> None:
    err = encode(source, tmp_path / "out", "--column", "text", *options, status=2)
    for part in parts:
        assert part in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (["--block-rows", 5], "block_rows was 4 and is 5"),
        (["--normalize"], "normalize was False and is True"),
        (["--truncate-dim", 8], "dim was 32 and is 8"),
        (["--precision", "float16"], "precision was 'float32' and is 'float16'"),
        (["--format", "npy"], "format was 'parquet' and is 'npy'"),
        (["--dtype", "bfloat16"], "model was "),
        (["--column", "id"], "column was 'text' and is 'id'"),
    ],
)
def test_parts_of_another_run(
    options: list[Any], changed: str, encode: Callable[..., str], source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    encode(source, out, *BLOCKS, "--shard", "1/6")
    before = contents(out)
    err = encode(source, out, *BLOCKS, "--shard", "2/6", *options, status=2)
    assert f"{out} holds parts of another run ({changed}" in err
    assert contents(out) == before


def test_another_tokenizer_of_the_same_weights(model: str, source: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(model, folder)
    arguments = [*("encode", folder, source, "--output", out), *BLOCKS, "--shard"]
    assert main([str(argument) for argument in (*arguments, "1/6")]) == 0
    before = contents(out)
    assert main([str(argument) for argument in (*arguments, "1/6")]) == 0
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words["cat"], words["sky"] = words["sky"], words["cat"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert main([str(argument) for argument in (*arguments, "2/6")]) == 2
    assert contents(out) == before


def test_another_source_and_other_files(encode: Callable[..., str], source: Path, tmp_path: Path) -> None:
    encode(source, tmp_path / "out", *BLOCKS, "--shard", "1/6")
    parquet.write_table(pyarrow.table({"text": TEXTS[::-1]}), source)
    assert "(source was" in encode(source, tmp_path / "out", *BLOCKS, "--shard", "1/6", status=2)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    err = encode(source, tmp_path / "other", *BLOCKS, "--shard", "1/6", status=2)
    assert "holds 'notes.txt' and no manifest; expected a new or empty folder" in err
    assert "is a file; expected a folder" in encode(source, source, *BLOCKS, "--shard", "1/6", status=2)


def test_a_manifest_that_another_process_has_made_since(
    encode: Callable[..., str], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(source, tmp_path / "out", *BLOCKS, "--shard", "1/6")
    looks: list[Path] = []

    def unseen_at_first(path: Path) -> bool:
        looks.append(path)
        return len(looks) > 1 and path.is_file()

    monkeypatch.setattr(shards, "is_file", unseen_at_first)
    assert encode(source, tmp_path / "out", *BLOCKS, "--shard", "2/6") == f"wrote 1 of 1 parts to {tmp_path / 'out'}\n"
    assert len(contents(tmp_path / "out")) == 3


@pytest.mark.parametrize(("number", "lines"), [("0", 1), ("1", 0)])
def test_several_processes_of_a_launcher(
    number: str, lines: int, encode: Callable[..., str], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": number, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(options_of_commands, "_PATIENCE", 0)
    for options in ([], ["--format", "npy"]):
        err = encode(source, tmp_path / "out", "--column", "text", *options, status=2)
        assert err.count("\n") == lines
        assert not lines or ("encode in 2 processes" in err and "--shard K/N" in err)
    assert not (tmp_path / "out").exists()
    encode(source, tmp_path / "out", *BLOCKS, "--format", "npy", "--shard", f"{int(number) + 1}/2")
    assert len(contents(tmp_path / "out")) == 4


@pytest.mark.skipif(not shutil.which("bash"), reason="a script of bash")
def test_the_script_for_slurm(source: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "encoding.md").read_text(encoding="utf-8")
    script = page.partition('title="encode.slurm"\n')[2].partition("```")[0]
    (tmp_path / "minisbert").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "minisbert").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    task = {**os.environ, "PATH": path, "SLURM_ARRAY_TASK_ID": "3", "SLURM_CPUS_PER_TASK": "4"}
    done = subprocess.run(["bash", "-eu", "-c", script], env=task, capture_output=True, text=True, check=True)
    options = _parser().parse_args(shlex.split(done.stdout))
    assert (options.shard, options.threads, options.run) == ((3, 16), 4, run_encode)


def test_columns_and_lines(encode: Callable[..., str], source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert f"got no --column for {source}; expected the name of" in encode(source, out, "--shard", "1/1", status=2)
    lines = tmp_path / "in.txt"
    lines.write_text("a cat\n")
    assert "expected none for a file of lines" in encode(lines, out, "--shard", "1/1", "--column", "a", status=2)
    assert "--keep for" in encode(lines, out, "--shard", "1/1", "--keep", "a", status=2)
    lines.write_text("")
    assert "holds no texts" in encode(lines, out, "--shard", "1/1", status=2)
    missing = tmp_path / "none.jsonl"
    assert f"there is no file {missing}" in encode(missing, out, "--shard", "1/1", "--column", "a", status=2)
    assert not out.exists()


def test_more_shards_than_blocks(encode: Callable[..., str], source: Path, tmp_path: Path) -> None:
    assert encode(source, tmp_path / "out", "--column", "text", "--shard", "1/2").startswith("wrote 0 of 0 parts to")
    assert encode(source, tmp_path / "out", "--column", "text", "--shard", "2/2").startswith("wrote 1 of 1 parts to")


def test_threads(encode: Callable[..., str], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    encode(source, tmp_path / "out", *BLOCKS, "--format", "npy", "--threads", 3)
    assert seen == [3]


def test_the_single_file_in_half_precision(
    encode: Callable[..., str], model: str, source: Path, tmp_path: Path
) -> None:
    encode(source, tmp_path / "e.npy", "--column", "text", "--precision", "float16")
    expected = SentenceTransformer(model, device="cpu").encode(TEXTS).astype(np.float16)
    np.testing.assert_array_equal(np.load(tmp_path / "e.npy"), expected)


def test_a_shard_without_blocks(encode: Callable[..., str], source: Path, tmp_path: Path) -> None:
    err = encode(source, tmp_path / "out", *BLOCKS, "--shard", "1/9")
    assert err.endswith("the file has 6 blocks for 9 shards, and this shard none of them\n")
    assert "got no --column for" in encode(source, tmp_path / "out", "--shard", "1/9", status=2)
