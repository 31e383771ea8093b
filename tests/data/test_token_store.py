"""Token stores: streamed from files, complete or continued, refused when they are damaged or of something else."""

from __future__ import annotations

import csv
import gzip
import json
import threading
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import scored_pairs

from minisbert import SentenceTransformer
from minisbert.data import stored_rows as module
from minisbert.data import streaming
from minisbert.data.roles import training_rows
from minisbert.data.rows import as_table
from minisbert.data.stored_rows import StoredRows, stored_rows
from minisbert.data.streaming import count_rows, read_blocks, read_line_blocks
from minisbert.errors import ConfigError, InputError, InputTypeError
from minisbert.text import TextTokenizer

FIRST, SECOND, SCORES = scored_pairs(50, seed=4)


@pytest.fixture
def tokenizer(tiny: Callable[[str], Path]) -> TextTokenizer:
    return SentenceTransformer(tiny("bert"), device="cpu").transformer.text_tokenizer


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 16)


def tsv(path: Path, *, scores: bool = True) -> Path:
    rows = zip(FIRST, SECOND, SCORES, strict=True)
    lines = [("a", "b", "score"), *rows] if scores else [("a", "b"), *((a, b) for a, b, _ in rows)]
    path.write_text("".join("\t".join(map(str, line)) + "\n" for line in lines), encoding="utf-8")
    return path


def texts_of(rows: StoredRows) -> list[list[int]]:
    texts = rows.store.texts
    return [texts.ids[start:end].tolist() for start, end in zip(texts.offsets, texts.offsets[1:], strict=False)]


# ---- reading --------------------------------------------------------------------------------------------------------


def quoted(path: Path, **options: Any) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, **options)
        writer.writerows([("a", "b"), ('say "no"', "x\ny"), *(("plain", f"text {number}") for number in range(40))])


FILES: dict[str, Callable[[Path], object]] = {
    "plain.tsv": tsv,
    "crlf.tsv": lambda path: path.write_bytes(tsv(path).read_bytes().replace(b"\n", b"\r\n")[:-2]),
    "bom.tsv": lambda path: path.write_bytes(b"\xef\xbb\xbf" + tsv(path).read_bytes()),
    "carriage_returns.tsv": lambda path: path.write_bytes(tsv(path).read_bytes().replace(b"\n", b"\r")),
    "carriage_returns.csv": lambda path: quoted(path, lineterminator="\r", quoting=csv.QUOTE_ALL),
    "some_carriage_returns.csv": lambda path: path.write_bytes(b"a,b\n" + b'x,"y\rz"\rv,w\r\nt,u\n' * 9),
    "one_column.tsv": lambda path: path.write_text("a\n" + "text\n\n" * 20),
    "empty_lines.tsv": lambda path: path.write_text("a\tb\n" + "x\ty\n\n" * 20),
    "quotes_of_texts.tsv": lambda path: path.write_text('a\tb\n"x" said\the\n' * 30),
    "quoted.tsv": lambda path: quoted(path, delimiter="\t", lineterminator="\n"),
    "quoted_all.tsv": lambda path: quoted(path, delimiter="\t", quoting=csv.QUOTE_ALL),
    "quoted.csv": quoted,
    "packed.tsv.gz": lambda path: path.write_bytes(gzip.compress(tsv(path).read_bytes())),
    "rows.jsonl": lambda path: path.write_text("".join(json.dumps({"a": a, "b": "é"}) + "\n\n" for a in FIRST)),
    "blanks.jsonl": lambda path: path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n' + b' {"a": "x"} \n\xc2\xa0\n' * 9),
    "without_end.jsonl": lambda path: path.write_text('{"a": 1}\n' * 20 + '{"a": {"b": [2]}}'),
    "rows.json": lambda path: path.write_text(json.dumps([{"a": a, "score": 1} for a in FIRST])),
}


@pytest.mark.parametrize("name", FILES)
def test_blocks_are_the_rows_of_the_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    FILES[name](path)
    expected = as_table(path)
    blocks = list(read_blocks(path, 7))
    for column, values in expected.columns.items():
        assert list(chain.from_iterable(block.table.columns[column] for block in blocks)) == values
    assert {block.table.source for block in blocks} == {expected.source}
    if expected.lines is not None:
        assert list(chain.from_iterable(block.table.lines or () for block in blocks)) == list(expected.lines)
        assert all(len(block.table) == 7 for block in blocks[:-1])
    assert 0 <= blocks[0].done <= blocks[-1].done <= 1


def test_blocks_of_parquet(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"query": FIRST, "pos": [[text] for text in SECOND], "score": SCORES}
    parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet", row_group_size=20)
    blocks = list(read_blocks(tmp_path / "rows.parquet", 16))
    assert {name: [one for block in blocks for one in block.table.columns[name]] for name in columns} == columns
    assert blocks[-1].done == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.tsv", b"a\tb\nx\ty\n" * 9 + b"x\n", r"line 19: got 1 field\(s\); expected 2"),
        ("rows.tsv", b"a\tb\nx\t\xff\n", "line 2: got bytes that are not UTF-8"),
        ("rows.tsv", b"a\tb\nx\t\0\n", "line 2: got a zero byte"),
        ("rows.csv", b'a,b\nx,"y" z\n', "line 2: .* fix the quotes"),
        ("rows.jsonl", b'{"a": 1}\n' * 9 + b'{"b": 1}\n', r"line 10: got the keys \['b'\]; expected \['a'\]"),
        (
            "rows.jsonl",
            b'{"a": 1}\n' * 9 + b'{"a": 1, "b": 1}\n',
            r"line 10: got the keys \['a', 'b'\]; expected \['a'\]",
        ),
        ("rows.jsonl", b'{}\n{"a": 1}\n', r"line 2: got the keys \['a'\]; expected \[\]"),
        ("rows.jsonl", b'{"a": 1}\n[]\n', "line 2: got a JSON list"),
        ("rows.jsonl", b'{"a": 1}\n{"a": 1},{"a": 2}\n{"a": [1\n2]}\n', "line 2: Extra data"),
        ("rows.jsonl", b'{"a": 1}\n{"a":\n2}\n', "line 2: Expecting value"),
        ("rows.jsonl", b'{"a": 1}\n{"a": "\n"}\n', "line 2: Invalid control character|line 2: Unterminated string"),
        ("rows.jsonl", b'{"a": 1}\n\n' + b"[" * 100_000 + b"\n", "line 3: .*recursion"),
        ("rows.jsonl", b'{"a": 1}\n\n{"a": "\xff"}\n', "line 3: got bytes that are not UTF-8"),
        ("rows.jsonl", b'\xef\xbb\xbf{"a": 1}\n{"a": "\0\xff"}\n\xff', "line 2: got a zero byte"),
        ("rows.tsv.gz", gzip.compress(b"a\tb\nx\ty\n" * 99, mtime=0)[:-9], "expected a complete file"),
        ("rows.parquet", b"PAR1", "expected a parquet file"),
        ("rows.xlsx", b"", "expected an ending"),
        ("rows.tsv", b"", "got no names of columns"),
    ],
)
def test_broken_files(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(read_blocks(tmp_path / name, 4))


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_that_end_in_another_chunk(end: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_CHUNK", 5)
    path = tmp_path / "rows.jsonl"
    objects = [json.dumps({"a": text, "b": "é" * number}, ensure_ascii=False) for number, text in enumerate(FIRST)]
    path.write_bytes(end.join(line.encode() for line in ["", *objects]))
    expected = as_table(path)
    assert count_rows(path) == len(expected) == 50
    for first, last in ((0, None), (17, 40), (49, 50), (50, None)):
        blocks = [block.table for block in read_blocks(path, 7, first=first, last=last)]
        assert [one for block in blocks for one in block.columns["a"]] == expected.columns["a"][first:last]
        assert [one for block in blocks for one in block.lines or ()] == [*(expected.lines or ())][first:last]
    texts = [text for block in read_line_blocks(path, 7) for text in block.table.columns["text"]]
    assert texts == ["", *objects]
    assert count_rows(path, lines=True) == 51


def test_rows_before_a_broken_line_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for broken in (b"[]\n", b"\xff\n"):
        path.write_bytes(b'{"a": 1}\n' * 9 + broken)
        blocks = read_blocks(path, 3)
        assert [next(blocks).table.lines for _ in range(3)] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
        with pytest.raises(InputError, match="line 10"):
            next(blocks)
        assert len(next(read_blocks(path, 4, first=5, last=9)).table) == 4


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_CHUNK", 16)
    monkeypatch.setattr(streaming, "_LONGEST_LINE", 100)
    (tmp_path / "rows.tsv").write_bytes(b"a\tb\nx\ty\n" + b"x" * 200)
    with pytest.raises(InputError, match="line 3: got 100 MB without its end"):
        list(read_blocks(tmp_path / "rows.tsv", 4))


# ---- stores ---------------------------------------------------------------------------------------------------------


def test_a_store_holds_what_is_tokenized_in_memory(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    path = tsv(tmp_path / "pairs.tsv")
    rows = stored_rows(path, tokenizer, cache=tmp_path / "cache", prompts=lambda _: {"a": "why "}, scale=(0, 2))
    expected = training_rows(path, scale=(0, 2))
    assert len(rows) == 50
    assert rows.describe() == expected.describe()
    assert (rows.columns, rows.label_type) == (expected.columns, expected.label_type)
    assert rows.labels.dtype == np.float32
    assert np.array_equal(rows.labels, np.array(expected.labels, np.float32))
    both = chain.from_iterable(zip((f"why {text}" for text in FIRST), SECOND, strict=True))
    assert texts_of(rows) == [tokenizer([text]).ids.tolist() for text in both]
    assert rows.store.texts.ids.dtype == np.uint16
    assert rows.head.texts == {name: texts[:16] for name, texts in expected.texts.items()}
    assert rows.head.scores == pytest.approx(expected.scores[:16])
    numbers = dict(zip([*FIRST, *SECOND], rows.store.hashes.T.ravel().tolist(), strict=True))
    assert len(set(numbers.values())) == len({*FIRST, *SECOND})
    (folder,) = (tmp_path / "cache").iterdir()
    header = json.loads((folder / "header.json").read_text())
    assert header["rows"] == 50
    assert header["files"]["ids.bin"]["bytes"] == 2 * header["tokens"]


def test_classes_are_numbered_by_their_sorted_names(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    names = ["sea", "tree", "ant", "sky", "bee"]
    path = tmp_path / "classes.jsonl"
    path.write_text("".join(json.dumps({"a": a, "label": names[i * 5 // 50]}) + "\n" for i, a in enumerate(FIRST)))
    rows = stored_rows(path, tokenizer, cache=tmp_path / "cache", classes=True)
    expected = training_rows(path, classes=True)
    assert rows.classes == expected.classes == tuple(sorted(names))
    assert rows.labels.tolist() == expected.labels


def test_lists_fill_the_columns_of_the_first_block(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "lists.jsonl"
    lists = [[f"neg {number}" for number in range(3 if row < 16 else 5 - row % 5)] for row in range(50)]
    rows = [{"query": a, "pos": [b], "neg": neg} for a, b, neg in zip(FIRST, SECOND, lists, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stored = stored_rows(path, tokenizer, cache=tmp_path / "cache")
    assert list(stored.texts) == ["query", "pos", "neg_1", "neg_2", "neg_3"]
    texts = texts_of(stored)
    assert [texts[5 * 49 + place] for place in (2, 3, 4)] == [tokenizer(["neg 0"]).ids.tolist()] * 3


def test_labels_of_several_numbers(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "vectors.jsonl"
    path.write_text(
        "".join(json.dumps({"a": a, "label": [s, 1, 2]}) + "\n" for a, s in zip(FIRST, SCORES, strict=True))
    )
    rows = stored_rows(path, tokenizer, cache=tmp_path / "cache")
    assert np.array_equal(rows.labels, training_rows(path).labels)
    assert rows.describe().endswith("label label of 3 numbers")


def test_a_killed_build_goes_on_behind_its_last_block(
    tokenizer: TextTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = tsv(tmp_path / "pairs.tsv"), tmp_path / "cache"
    whole = stored_rows(path, tokenizer, cache=tmp_path / "other").store.header["files"]
    counted: list[int] = []
    real = TextTokenizer.__call__

    def counting(self: TextTokenizer, texts: Any, *, first: int = 0) -> Any:
        if len(counted) == 2:
            raise KeyboardInterrupt
        counted.append(first)
        return real(self, texts, first=first)

    monkeypatch.setattr(TextTokenizer, "__call__", counting)
    with pytest.raises(KeyboardInterrupt):
        stored_rows(path, tokenizer, cache=cache)
    (folder,) = cache.iterdir()
    with (folder / "ids.bin").open("ab") as file:
        file.write(b"of a block that was not complete")
    assert json.loads((folder / "progress.json").read_text())["blocks"] == 2
    monkeypatch.setattr(TextTokenizer, "__call__", lambda *given, first=0: (counted.append(first), real(*given))[1])
    assert stored_rows(path, tokenizer, cache=cache).store.header["files"] == whole
    assert counted == [0, 32, 64, 96]
    assert not (folder / "progress.json").exists()


@pytest.mark.parametrize("name", ["ids.bin", "offsets.bin", "hashes.bin", "labels.bin", "header.json"])
@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"\1" + content[1:], None])
def test_damaged_stores_are_refused(name: str, damage: Any, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    path = tsv(tmp_path / "pairs.tsv")
    store = stored_rows(path, tokenizer, cache=tmp_path / "cache").store
    file = store.folder / name
    if damage is None and name == "header.json":
        pytest.skip("then there is no store")
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))
    message = f"{name} (is damaged|is missing|cannot be read).*expected a token store: copy it again"
    with pytest.raises(InputError, match=message):
        stored_rows(store.folder, tokenizer, cache=None)


@pytest.mark.parametrize("change", [{"rows": 99}, {"made_of": {"texts": 5}}, {"types": {}}, {"digest": None}], ids=str)
def test_a_changed_header_is_refused(change: Any, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    header = stored_rows(tsv(tmp_path / "pairs.tsv"), tokenizer, cache=tmp_path / "cache").store.folder / "header.json"
    header.write_text(json.dumps({**json.loads(header.read_text()), **change}))
    with pytest.raises(InputError, match=r"header.json is missing or damaged; expected a token store"):
        stored_rows(header.parent, tokenizer, cache=None)


def test_another_file_tokenizer_prompt_or_length_makes_another_store(
    tokenizer: TextTokenizer, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    path, cache = tsv(tmp_path / "pairs.tsv"), tmp_path / "cache"
    rows = stored_rows(path, tokenizer, cache=cache)
    assert stored_rows(path, tokenizer, cache=cache).store.folder == rows.store.folder
    other = SentenceTransformer(tiny("roberta"), device="cpu").transformer.text_tokenizer
    assert rows.tokenized(tokenizer, {}) is rows.store
    made = [rows.tokenized(other, {}), rows.tokenized(tokenizer, {"b": "x"})]
    tokenizer.max_length = 6
    made.append(rows.tokenized(tokenizer, {}))
    assert made[2].texts.truncated > 0
    assert max(map(len, texts_of(stored_rows(path, tokenizer, cache=cache)))) == 6
    path.write_text(path.read_text() + "x\ty\t0.5\n")
    made.append(stored_rows(path, tokenizer, cache=cache).store)
    assert len({store.folder for store in [rows.store, *made]}) == 5 == len(list(cache.iterdir()))
    alone = stored_rows(rows.store.folder, tokenizer, cache=None)
    with pytest.raises(ConfigError, match="was made with another maximum length; expected what is trained with"):
        alone.tokenized(tokenizer, {})
    with pytest.raises(ConfigError, match="another tokenizer, maximum length, prompts"):
        alone.tokenized(TextTokenizer(other.tokenizer, max_length=7), {"a": "x"})


def test_one_of_several_builds_and_the_others_wait(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    path, found = tsv(tmp_path / "pairs.tsv"), []
    threads = [
        threading.Thread(target=lambda: found.append(stored_rows(path, tokenizer, cache=tmp_path / "cache")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len({json.dumps(rows.store.header) for rows in found}) == 1


def test_a_full_disk_is_reported_and_what_was_written_stays(
    tokenizer: TextTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = tsv(tmp_path / "pairs.tsv"), tmp_path / "cache"
    written = module.StoreWriter._write
    calls: list[str] = []

    def full(self: Any, name: str, values: Any) -> None:
        calls.append(name)
        if len(calls) > 9:
            raise OSError(28, "No space left on device")
        written(self, name, values)

    with monkeypatch.context() as patch:
        patch.setattr(module.StoreWriter, "_write", full)
        with pytest.raises(InputError, match=r"cannot write .*pairs-\w+ \(No space left on device\)"):
            stored_rows(path, tokenizer, cache=cache)
    assert json.loads(next(cache.glob("*/progress.json")).read_text())["blocks"] == 2
    assert len(stored_rows(path, tokenizer, cache=cache)) == 50


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"a": "x", "b": "y", "score": 1}] * 20 + [{"a": "x", "b": "y", "score": "high"}], "line 21: column score"),
        ([{"a": "x", "b": "y"}] * 20 + [{"a": "x", "b": 3}], "line 21: column b holds 3 of type int; expected a text"),
        ([{"a": "x", "label": [1, 2]}] * 16 + [{"a": "x", "label": [1]}], "holds 1 numbers; expected 2, as before"),
        ([{"a": "x", "b": ["y"] * 2}] * 16 + [{"a": "x", "b": "y"}], r"line 17: got the columns \['a', 'b'\]"),
        ([], "holds no rows"),
    ],
)
def test_later_rows_have_the_form_of_the_first(
    lines: list[Any], message: str, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=message):
        stored_rows(path, tokenizer, cache=tmp_path / "cache")


def test_wrong_use(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    path = tsv(tmp_path / "pairs.tsv")
    with pytest.raises(InputTypeError, match="got list for a token store; expected the path of a data file"):
        stored_rows([("a", "b")], tokenizer, cache=tmp_path)
    with pytest.raises(ConfigError, match="got token_store=''; expected the path of a folder"):
        stored_rows(path, tokenizer, cache="")
    with pytest.raises(InputError, match="cannot write"):
        stored_rows(path, tokenizer, cache=path)
    with pytest.raises(InputError, match="there is no file"):
        stored_rows(tmp_path / "none.tsv", tokenizer, cache=tmp_path / "cache")
    folder = stored_rows(path, tokenizer, cache=tmp_path / "cache").store.folder
    with pytest.raises(ConfigError, match="got columns for a token store; expected none"):
        stored_rows(folder, tokenizer, cache=None, columns=["a"])
    assert list(islice(tmp_path.glob("none*"), 1)) == []


def test_empty_texts_are_counted(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"a": text}) + "\n" for text in ["", " ", *FIRST]))
    with pytest.warns(UserWarning, match="2 text.s. of .*rows.jsonl are empty"):
        stored_rows(path, tokenizer, cache=tmp_path / "cache")
