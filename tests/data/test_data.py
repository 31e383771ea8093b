"""Rows of every shape become the same columns, and bad input gives one line that says what to mend."""

from __future__ import annotations

import gzip
import json
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minisbert import InputExample
from minisbert.data import roles
from minisbert.data.readers import read_columns, read_lines
from minisbert.data.roles import TrainingRows, training_rows
from minisbert.data.rows import as_table
from minisbert.errors import ConfigError, InputError, InputTypeError, MinisbertError

COLUMNS = {
    "first": ["a cat", "naïve\u2028café", "red"],
    "second": ["a dog", 'say "hi", now', "我们"],
    "score": [0, 2.5, 5],
}
TEXTS = {name: COLUMNS[name] for name in ("first", "second")}
LABELS = [0.0, 2.5, 5.0]
ROWS = list(zip(*COLUMNS.values(), strict=True))
TSV = 'first\tsecond\tscore\na cat\ta dog\t0\nnaïve\u2028café\tsay "hi", now\t2.5\nred\t我们\t5\n'
CSV = 'first,second,score\na cat,a dog,0\nnaïve\u2028café,"say ""hi"", now",2.5\nred,我们,5\n'
JSONL = "".join(json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) + "\n" for row in ROWS)
MENDING = re.compile(r"expected .+: [a-z]")  # what was expected, a colon, and what to do


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Write a file of the given name and content."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        raw = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(raw, mtime=0) if name.endswith(".gz") and isinstance(content, str) else raw)
        return path

    return write


def refused(data: Any, kind: type[MinisbertError] = InputError, **options: Any) -> str:
    """The message that `data` is refused with: one line of a length that can be read."""
    with pytest.raises(kind) as caught:
        training_rows(data, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    assert MENDING.search(message), f"the message does not say how to mend: {message}"
    return message


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.tsv", TSV),
        ("rows.tsv", TSV.removesuffix("\n")),
        ("rows.tsv", TSV.replace("\n", "\r\n")),
        ("rows.tsv", TSV.replace("\n", "\r")),
        ("rows.tsv", "\ufeff" + TSV),
        ("rows.TSV", TSV),
        ("rows.csv", CSV),
        ("rows.csv", CSV.replace("\n", "\r\n")),
        ("rows.csv", CSV.replace("\n", "\r")),
        ("rows.csv", "\ufeff" + CSV + "\n\n"),
        ("rows.jsonl", JSONL),
        ("rows.jsonl", JSONL.replace("\n", "\r\n\r\n")),
        ("rows.tsv.gz", TSV),
        ("rows.csv.gz", CSV),
        ("rows.jsonl.gz", JSONL),
        ("ROWS.TSV.GZ", gzip.compress(TSV.encode(), mtime=0)),
    ],
)
@pytest.mark.parametrize("as_path", [Path, str])
def test_files(name: str, content: str | bytes, as_path: Callable[[Path], Any], write: Callable[..., Path]) -> None:
    rows = training_rows(as_path(write(name, content)))
    assert rows.texts == TEXTS
    assert rows.labels == LABELS
    assert rows.label_name == "score"
    assert len(rows) == 3
    assert name in rows.source


def test_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({**COLUMNS, "score": LABELS}), tmp_path / "rows.parquet")
    rows = training_rows(tmp_path / "rows.parquet")
    assert (rows.texts, rows.labels) == (TEXTS, LABELS)


def test_parquet_without_pyarrow(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"rows\.parquet.*pip install pyarrow"):
        training_rows(write("rows.parquet", b"PAR1"))


def test_a_csv_field_may_span_lines_and_rows_keep_their_line(write: Callable[..., Path]) -> None:
    path = write("rows.csv", 'a,b,label\n"one\ntwo",x,1\ny,z,bad\n')
    columns, lines, *_ = read_columns(path)
    assert columns["a"] == ["one\ntwo", "y"]
    assert list(lines or ()) == [3, 4]
    assert "rows.csv, line 4" in refused(path)


def test_jsonl_keys_may_stand_in_any_order(write: Callable[..., Path]) -> None:
    rows = training_rows(write("rows.jsonl", '{"a": "x", "b": "y"}\n\n{"b": "z", "a": "w"}\n'))
    assert rows.texts == {"a": ["x", "w"], "b": ["y", "z"]}


def test_empty_lines_between_rows_of_several_fields_are_none(write: Callable[..., Path]) -> None:
    columns, lines, *_ = read_columns(write("rows.tsv", "a\tb\n\nx\ty\n\n"))
    assert (columns, list(lines or ())) == ({"a": ["x"], "b": ["y"]}, [3])
    assert read_columns(write("texts.tsv", "a\nx\n\ny\n"))[0] == {"a": ["x", "", "y"]}


def test_a_csv_field_may_be_long(write: Callable[..., Path]) -> None:
    assert len(read_columns(write("rows.csv", f"a,b\n{'x' * 200_000},y\n"))[0]["a"][0]) == 200_000


def test_several_data_sets_are_not_columns() -> None:
    datasets = pytest.importorskip("datasets")
    parts = datasets.DatasetDict({"train": datasets.Dataset.from_dict(TEXTS)})
    with pytest.raises(InputTypeError, match=r"pass data\['train'\]"):
        training_rows(parts)


def test_read_lines_ends_lines_at_line_feeds_only(write: Callable[..., Path]) -> None:
    path = write("texts.txt.gz", "one\u2028still one\r\n\n three\x0b\n")
    assert read_lines(path) == ["one\u2028still one", "", " three\x0b"]


HEAD = "a\tb\tlabel\n"
BROKEN_FILES = {
    "unknown ending": ("rows.txt", HEAD, ["rows.txt", ".tsv, .csv, .jsonl"]),
    "no ending": ("rows", HEAD, ["rows", ".tsv, .csv, .jsonl"]),
    "too few fields": ("rows.tsv", HEAD + "x\ty\t1\nx\ty\n", ["rows.tsv, line 3", "2 field", "expected 3"]),
    "too many fields": ("rows.tsv", HEAD + "x\ty\t1\tz\n", ["rows.tsv, line 2", "4 field", "expected 3"]),
    "too few in csv": ("rows.csv", "a,b\nx,y\nx\n", ["rows.csv, line 3", "1 field", "expected 2"]),
    "open quote": ("rows.csv", 'a,b\n"x,y\n', ["rows.csv, line 2"]),
    "not UTF-8": ("rows.tsv", HEAD.encode() + b"x\ty\t1\n\xe9\ty\t1\n", ["rows.tsv, line 3", "UTF-8"]),
    "not UTF-8 csv": ("rows.csv", b"a,b\nx,\xff\n", ["rows.csv, line 2", "UTF-8"]),
    "not UTF-8 in gzip": ("rows.tsv.gz", gzip.compress(HEAD.encode() + b"\xe9\ty\t1\n", mtime=0), ["line 2", "UTF-8"]),
    "UTF-16": ("rows.jsonl", JSONL.encode("utf-16"), ["rows.jsonl, line 1", "UTF-8"]),
    "not gzip": ("rows.tsv.gz", HEAD.encode(), ["rows.tsv.gz", "gzip"]),
    "cut gzip": ("rows.tsv.gz", gzip.compress(HEAD.encode() * 50, mtime=0)[:-12], ["rows.tsv.gz", "ended"]),
    "damaged gzip": ("rows.tsv.gz", gzip.compress(HEAD.encode(), mtime=0)[:10] + b"\xff" * 40, ["rows.tsv.gz"]),
    "broken JSON": ("rows.jsonl", '{"a": "x"}\n\n{"a": \n', ["rows.jsonl, line 3", "JSON object"]),
    "JSON list": ("rows.jsonl", '["x", "y"]\n', ["rows.jsonl, line 1", "list", "expected an object"]),
    "JSON number of 5,000 digits": ("rows.jsonl", f'{{"a": "x", "label": 1{"0" * 5000}}}\n', ["rows.jsonl, line 1"]),
    "nested too deep": ("rows.jsonl", '{"a": ' + "[" * 100_000 + "\n", ["rows.jsonl, line 1"]),
    "other keys": ("rows.jsonl", '{"a": "x"}\n{"c": "y"}\n', ["rows.jsonl, line 2", "['c']", "expected ['a']"]),
    "missing key": ("rows.jsonl", '{"a": "x", "b": "y"}\n{"a": "x"}\n', ["line 2", "['a']", "expected ['a', 'b']"]),
    "not parquet": ("rows.parquet", "nothing", ["rows.parquet", "expected a parquet file"]),
    "empty tsv": ("rows.tsv", "", ["rows.tsv"]),
    "empty csv": ("rows.csv", "", ["rows.csv"]),
    "empty jsonl": ("rows.jsonl", "", ["rows.jsonl", "no rows", "at least one"]),
    "header only": ("rows.tsv", HEAD, ["rows.tsv", "no rows", "at least one"]),
    "one name twice": ("rows.tsv", "a\ta\nx\ty\n", ["rows.tsv, line 1", "['a', 'a']"]),
    "two label columns": ("rows.tsv", "a\tlabel\tscore\nx\t1\t2\n", ["rows.tsv", "['label', 'score']", "columns"]),
    "only a label": ("rows.tsv", "label\n1\n", ["rows.tsv", "['label']", "at least one column of texts"]),
    "label is a word": ("rows.tsv", HEAD + "x\ty\t1\nx\ty\thigh\n", ["rows.tsv, line 3", "label", "'high'", "number"]),
    "label is empty": ("rows.tsv", HEAD + "x\ty\t\n", ["rows.tsv, line 2", "label", "''", "number"]),
    "label is nan": ("rows.tsv", HEAD + "x\ty\tnan\n", ["rows.tsv, line 2", "'nan'", "finite number"]),
    "label is inf": ("rows.csv", "a,b,label\nx,y,-inf\n", ["rows.csv, line 2", "'-inf'", "finite number"]),
    "label is NaN in JSON": ("rows.jsonl", '{"a": "x", "label": NaN}\n', ["rows.jsonl, line 1", "nan", "finite"]),
    "label is null": ("rows.jsonl", '{"a": "x", "label": null}\n', ["rows.jsonl, line 1", "None", "finite number"]),
    "label is huge": ("rows.jsonl", f'{{"a": "x", "label": 1{"0" * 400}}}\n', ["rows.jsonl, line 1", "finite number"]),
    "label is a long text": ("rows.tsv", f"a\tlabel\nx\t{'long ' * 2_000}\n", ["rows.tsv, line 2", "long long"]),
    "text is null": (
        "rows.jsonl",
        '{"a": "x", "b": null}\n',
        ["rows.jsonl, line 1", "b holds None", "expected a text"],
    ),
    "text is a number": ("rows.jsonl", '{"a": 7, "b": "x"}\n', ["rows.jsonl, line 1", "a holds 7", "expected a text"]),
}


@pytest.mark.parametrize(("name", "content", "parts"), BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_broken_files(name: str, content: str | bytes, parts: list[str], write: Callable[..., Path]) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    message = refused(write(name, content))
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", ["none.tsv", "none.csv", "none.jsonl.gz", "none.parquet"])
def test_missing_files(name: str, tmp_path: Path) -> None:
    assert f"there is no file {tmp_path / name}" in refused(tmp_path / name)


def test_folders_as_files(tmp_path: Path) -> None:
    (folder := tmp_path / "folder.tsv").mkdir()
    message = f"{folder} is a folder; expected a data file: pass the files in it"
    assert message in refused(folder)
    with pytest.raises(InputError, match=re.escape(message)):
        read_lines(folder)


# ---- rows from Python -----------------------------------------------------------------------------------------------


class ForeignExample:
    """Shaped like the reference's InputExample."""

    def __init__(self, texts: list[str], label: float) -> None:
        self.texts, self.label = texts, label


@pytest.mark.parametrize(
    "data",
    [
        [dict(zip(COLUMNS, row, strict=True)) for row in ROWS],
        ROWS,
        [list(row) for row in ROWS],
        COLUMNS,
        {**COLUMNS, "score": np.array(COLUMNS["score"])},
        {**TEXTS, "score": torch.tensor(LABELS)},
        [(*row[:2], np.float32(row[2])) for row in ROWS],
        [InputExample(texts=row[:2], label=row[2]) for row in ROWS],
        [ForeignExample(list(row[:2]), row[2]) for row in ROWS],
        as_table(COLUMNS),
        training_rows(COLUMNS),
    ],
    ids=[
        "dicts",
        "tuples",
        "lists",
        "columns",
        "columns with an array",
        "columns with a tensor",
        "numpy labels",
        "InputExample",
        "another InputExample",
        "table",
        "rows with roles",
    ],
)
def test_python_rows(data: Any) -> None:
    rows = training_rows(data)
    assert list(rows.texts.values()) == list(TEXTS.values())
    assert rows.labels == LABELS
    assert len(rows) == 3


def test_generator() -> None:
    rows = training_rows(row for row in ROWS)
    assert (list(rows.texts.values()), rows.labels) == (list(TEXTS.values()), LABELS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_datasets() -> None:
    datasets = pytest.importorskip("datasets")
    rows = training_rows(datasets.Dataset.from_dict({**COLUMNS, "score": LABELS}))
    assert (rows.texts, rows.labels, rows.label_name) == (TEXTS, LABELS, "score")


def test_examples_without_label_and_keyword_only_guid() -> None:
    rows = training_rows([InputExample(texts=["x", "y"]), InputExample(guid="2", texts=["z", "w"])])
    assert (list(rows.texts.values()), rows.labels) == ([["x", "z"], ["y", "w"]], None)


BAD_ROWS: dict[str, tuple[Any, type[MinisbertError], list[str]]] = {
    "a number": (5, InputTypeError, ["int", "path, rows, or a dict"]),
    "nothing": (None, InputTypeError, ["NoneType", "path, rows, or a dict"]),
    "texts without columns": (["x", "y"], InputTypeError, ["row 0", "str"]),
    "numbers without columns": ([1, 2], InputTypeError, ["row 0", "int"]),
    "no rows": ([], InputError, ["no rows", "at least one"]),
    "no columns": ({}, InputError, ["no rows", "at least one"]),
    "empty columns": ({"a": [], "b": []}, InputError, ["no rows", "at least one"]),
    "empty generator": (iter(()), InputError, ["no rows", "at least one"]),
    "other keys": ([{"a": "x"}, {"b": "x"}], InputError, ["row 1", "['b']", "['a']"]),
    "tuple among dicts": ([{"a": "x"}, ("x",)], InputError, ["row 1", "tuple", "['a']"]),
    "shorter tuple": ([("x", "y"), ("x",)], InputError, ["row 1", "1 value", "expected 2"]),
    "text among tuples": ([("x", "y"), "xy"], InputError, ["row 1", "str", "expected 2"]),
    "example without label": (
        [InputExample(texts=["x", "y"], label=1.0), InputExample(texts=["x", "y"])],
        InputError,
        ["row 1", "sentence_1", "expected the keys of the first row", "label"],
    ),
    "columns of different length": ({"a": ["x"], "b": ["y", "z"]}, InputError, ["'a': 1", "'b': 2"]),
    "column is a number": ({"a": ["x"], "label": 1.0}, InputTypeError, ["label", "float", "list"]),
    "column is one text": ({"a": "xy", "b": ["v", "w"]}, InputTypeError, ["column a", "str", "list"]),
    "None as text": ([("x", "y", 1), ("x", None, 1)], InputError, ["row 1", "column_1", "None", "expected a text"]),
    "None as last label": ([("x", "y", 1), ("x", "y", None)], InputError, ["row 1", "column_2", "None", "number"]),
    "NaN label": ([("x", "y", 1.0), ("x", "y", math.nan)], InputError, ["row 1", "nan", "finite number"]),
    "word as label": ([{"a": "x", "label": "high"}], InputError, ["row 0", "'high'", "finite number"]),
    "numpy word as label": ({"a": ["x"], "label": np.array(["high"])}, InputError, ["row 0", "'high'", "number"]),
    "list with a word as label": ([{"a": "x", "label": [1, "2"]}], InputError, ["row 0", "[1, '2']", "list of finite"]),
    "array with NaN": ({"a": ["x"], "label": np.full((1, 2), np.nan)}, InputError, ["row 0", "list of finite numbers"]),
    "complex label": ([{"a": "x", "label": 1j}], InputError, ["row 0", "1j", "finite number"]),
    "label beyond floats": ([("x", "y", 10**400)], InputError, ["row 0", "finite number"]),
    "number as text": ([{"a": "x", "b": 3.5, "label": 1}], InputError, ["row 0", "b holds 3.5", "expected a text"]),
}


@pytest.mark.parametrize(("data", "kind", "parts"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_rows(data: Any, kind: type[MinisbertError], parts: list[str]) -> None:
    message = refused(data, kind)
    for part in parts:
        assert part in message


# ---- roles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", roles.LABEL_NAMES)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_label_by_name(name: str, place: int) -> None:
    items = [("b", ["x"]), ("a", ["y"])]
    items.insert(place, (name, ["3.5"]))
    rows = training_rows(dict(items))
    assert list(rows.texts) == ["b", "a"]
    assert (rows.labels, rows.label_name) == ([3.5], name)
    assert rows.columns == tuple(column for column, _ in items)


@pytest.mark.parametrize(
    ("row", "label"),
    [
        (("x", "y", 1), 1.0),
        (("x", "y", True), 1.0),
        (("x", "y", np.int64(3)), 3.0),
        (("x", 0.25), 0.25),
        (("x", "y", "z"), None),
        (("x", "y", "3"), None),
        ((np.str_("x"), np.str_("y")), None),
        (("x",), None),
    ],
)
def test_label_by_order(row: tuple[Any, ...], label: float | None) -> None:
    rows = training_rows([row])
    assert rows.labels == (None if label is None else [label])
    assert len(rows.texts) == len(row) - (label is not None)
    assert (rows.columns[-1] == rows.label_name) == (label is not None)


@pytest.mark.parametrize(
    ("columns", "texts", "label_name"),
    [
        (("c", "a"), ["c", "a"], None),
        (("b", "a", "grade"), ["b", "a"], "grade"),
        (["label", "a"], ["a"], "label"),
        (("a", "grade", "b"), ["a", "grade", "b"], None),
    ],
)
def test_chosen_columns(
    columns: Sequence[str], texts: list[str], label_name: str | None, write: Callable[..., Path]
) -> None:
    path = write("rows.tsv", "a\tb\tc\tgrade\tlabel\tscore\nA\tB\tC\t4\t0.5\t9\n")
    rows = training_rows(path, columns=columns)
    assert list(rows.texts) == texts
    assert rows.label_name == label_name
    assert rows.labels == {None: None, "grade": [4.0], "label": [0.5]}[label_name]
    assert rows.columns == tuple(columns)


@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        (("first", "third"), ["there is no 'third'", "['first', 'second', 'score']"]),
        (("first", "first"), ["'first'", "once"]),
        ((), ["column"]),
    ],
)
def test_wrong_choice_of_columns(columns: Sequence[str], parts: list[str]) -> None:
    message = refused(COLUMNS, columns=columns)
    for part in parts:
        assert part in message


def test_description() -> None:
    assert training_rows(COLUMNS).describe() == "3 rows of the data: texts first + second, label score"
    assert training_rows(TEXTS).describe() == "3 rows of the data: texts first + second, no label"
    assert training_rows({"a": ["x"] * 1_234}).describe().startswith("1,234 rows")


# ---- scale ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "labels"),
    [((0, 5), [0.0, 0.5, 1.0]), ((-5, 5), [0.5, 0.75, 1.0]), ((0.0, 10.0), [0.0, 0.25, 0.5]), (None, LABELS)],
)
def test_scale(scale: tuple[float, float] | None, labels: list[float]) -> None:
    assert training_rows(COLUMNS, scale=scale).labels == labels


@pytest.mark.parametrize("scale", [(1, 5), (0, 4.9)])
def test_label_outside_of_scale(scale: tuple[float, float], write: Callable[..., Path]) -> None:
    low, high = scale
    message = refused(write("rows.tsv", TSV), scale=scale)
    assert f"rows.tsv, line {2 if low else 4}: got the label {0 if low else 5}" in message
    assert f"expected {low:g} to {high:g}" in message


def test_scale_of_decimals() -> None:
    scale: Any = (Decimal(0), Decimal(5))
    rows = training_rows([("a", "b", 2.5), ("c", "d", Decimal(5))], scale=scale)
    assert rows.labels == [0.5, 1.0]


@pytest.mark.parametrize(
    "scale",
    [
        *((5, 0), (1, 1), (math.nan, 1.0), (0.0, math.inf)),
        *((0, 10**400), (-(10**5000), 0), (-1e308, 1e308), (Decimal("NaN"), 1), (0, Decimal("sNaN"))),
    ],
)
def test_impossible_scale(scale: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="scale"):
        training_rows(COLUMNS, scale=scale)


def test_a_label_of_more_digits_than_python_writes() -> None:
    message = refused([("a", "b", 10**5000)])
    assert "column column_2 holds a value of type int; expected a finite number as label" in message


def test_scale_without_labels() -> None:
    message = refused(TEXTS, scale=(0, 5))
    assert "scale" in message
    assert "['first', 'second']" in message


@pytest.mark.parametrize("options", [{"scale": (0, 5)}, {"columns": ("second", "first")}])
def test_options_are_not_dropped_when_roles_are_known(options: dict[str, Any]) -> None:
    rows = training_rows(COLUMNS)
    assert isinstance(rows, TrainingRows)
    with pytest.raises(ConfigError, match=next(iter(options))):
        training_rows(rows, **options)


def test_a_stream_is_no_column() -> None:
    with pytest.raises(InputTypeError, match=r"column a is a generator; expected a list: pass list\(...\) of it"):
        training_rows({"a": (text for text in "xy"), "b": ["x", "y"]})


def test_labels_in_tensors() -> None:
    """As rows of a `datasets.Dataset` in torch's format have them."""
    rows = [{"a": "x", "label": torch.tensor([0.5])}, {"a": "y", "label": torch.tensor(1)}, {"a": "z", "label": 0}]
    assert training_rows(rows).labels == [0.5, 1.0, 0.0]
    assert training_rows([("x", torch.tensor(0.25)), ("y", np.array(1))]).labels == [0.25, 1.0]
    with pytest.raises(InputError, match="row 0 of the data: column label holds tensor"):
        training_rows([{"a": "x", "label": torch.tensor([0.5, torch.inf])}])


@pytest.mark.parametrize("columns", ["ab", 5, [["a"]], {"a": 1}, [None]])
def test_columns_that_are_no_names(columns: Any) -> None:
    with pytest.raises(InputTypeError, match="as columns; expected names"):
        training_rows({"a": ["x"], "b": ["y"]}, columns=columns)


@pytest.mark.parametrize("data", [np.array(3), torch.tensor(1.0), 5, object()])
def test_data_without_rows(data: Any) -> None:
    with pytest.raises(InputTypeError, match="as data; expected a path, rows, or a dict of columns"):
        training_rows(data)


def test_an_example_without_texts() -> None:
    class Example:
        texts = 5

    with pytest.raises(InputTypeError, match="whose texts are a int"):
        training_rows([Example()])
