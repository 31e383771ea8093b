"""Rows in every form that people have: frames, tables, data sets, cursors, lists of negatives, files with quotes."""

from __future__ import annotations

import csv
import json
import sqlite3
import warnings
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minisbert.data.roles import training_rows
from minisbert.data.rows import as_table, named_datasets
from minisbert.errors import InputError, InputTypeError

COLUMNS: dict[str, list[Any]] = {
    "question": ["Why is the sea salty?", 'Who said "hello"?', "one\ttwo"],
    "answer": ["rivers\nbring it", "我们", "three"],
    "grade": [1.0, 0.5, 0.0],
}
ROWS = list(zip(*COLUMNS.values(), strict=True))
DICTS = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
Row = namedtuple("Row", list(COLUMNS))


@dataclass
class Example:
    question: str
    answer: str
    grade: float


class MapStyle:
    """A data set as torch has them: indexed and sized, not iterated."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        return DICTS[index]

    def __len__(self) -> int:
        return len(DICTS)


def database(factory: Any = None) -> sqlite3.Cursor:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = factory
    connection.execute("create table pairs (question text, answer text, grade real)")
    connection.executemany("insert into pairs values (?, ?, ?)", ROWS)
    return connection.execute("select * from pairs")


def pandas_frame() -> Any:
    return pytest.importorskip("pandas").DataFrame(COLUMNS)


def polars_frame() -> Any:
    return pytest.importorskip("polars").DataFrame(COLUMNS)


def arrow_table() -> Any:
    return pytest.importorskip("pyarrow").table(COLUMNS)


def duckdb_relation() -> Any:
    duckdb = pytest.importorskip("duckdb")
    pairs = arrow_table()
    return duckdb.sql("select * from pairs", connection=None) if pairs is None else duckdb.from_arrow(pairs)


def dataset(form: str | None = None) -> Any:
    return pytest.importorskip("datasets").Dataset.from_dict(COLUMNS).with_format(form)


FORMS: dict[str, Callable[[], Any]] = {
    "named tuples": lambda: [Row(*row) for row in ROWS],
    "dataclasses": lambda: [Example(*row) for row in ROWS],
    "map-style": MapStyle,
    "structured array": lambda: np.rec.fromarrays(
        [np.array(column, dtype=object if name != "grade" else float) for name, column in COLUMNS.items()],
        names=list(COLUMNS),
    ),
    "cursor": database,
    "cursor of rows": lambda: database(sqlite3.Row),
    "list of sqlite3 rows": lambda: database(sqlite3.Row).fetchall(),
    "pandas": pandas_frame,
    "pandas, other index": lambda: pandas_frame().set_index(np.array([7, 7, 9])),
    "pandas categories": lambda: pandas_frame().astype({"answer": "category"}),
    "pandas columns": lambda: dict(pandas_frame().items()),
    "polars": polars_frame,
    "polars columns": lambda: polars_frame().to_dict(),
    "arrow": arrow_table,
    "arrow batch": lambda: arrow_table().to_batches()[0],
    "arrow columns": lambda: {name: arrow_table()[name] for name in COLUMNS},
    "duckdb": duckdb_relation,
    **{f"dataset as {form}": lambda form=form: dataset(form) for form in (None, "numpy", "torch", "pandas", "arrow")},
    "streamed dataset": lambda: dataset().to_iterable_dataset(),
    "filtered dataset": lambda: dataset().filter(lambda row: True),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows(form: str) -> None:
    rows = training_rows(FORMS[form]())
    assert rows.texts == {name: COLUMNS[name] for name in ("question", "answer")}
    assert (rows.label_name, rows.labels) == ("grade", COLUMNS["grade"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", [form for form in FORMS if "columns" not in form and "cursor" not in form])
def test_every_form_counts_as_a_data_set_in_a_dict(form: str) -> None:
    named = named_datasets({"one": FORMS[form](), "two": FORMS[form]()})
    if "streamed" in form:
        return  # known by its columns only where it has any
    assert named is not None
    assert [training_rows(data).labels for data in named.values()] == [COLUMNS["grade"]] * 2


class Frame:
    """A frame of a library that is not known."""

    columns = ("a", "b")

    def __iter__(self) -> Any:
        return iter(self.columns)


class LazyFrame(Frame):
    def collect(self) -> None: ...


class Remote(Frame):
    def to_pylist(self) -> None: ...


@pytest.mark.parametrize(
    ("data", "advice"),
    [(Frame(), "pass a dict of its columns"), (LazyFrame(), r"its collect\(\)"), (Remote(), r"its to_pylist\(\)")],
)
def test_what_has_columns_is_not_iterated(data: Any, advice: str) -> None:
    with pytest.raises(InputTypeError, match=advice):
        training_rows(data)
    named = named_datasets({"one": data})
    assert named is not None


def test_frames_whose_names_are_no_names() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([["a", "b"]], columns=pandas.MultiIndex.from_tuples([("x", "q"), ("x", "a")]))
    with pytest.raises(InputError, match=r"2 levels of column names; expected one: join them"):
        training_rows(frame)
    with pytest.raises(InputError, match="several columns called 'x'; expected a different name"):
        training_rows(pandas.DataFrame([["a", "b"]], columns=["x", "x"]))
    polars = pytest.importorskip("polars")
    with pytest.raises(InputTypeError, match=r"polars.LazyFrame as data; expected rows or columns: .* its collect\(\)"):
        training_rows(polars.DataFrame(COLUMNS).lazy())


def test_an_index_that_datasets_kept_is_left_out() -> None:
    data = dataset().add_column("__index_level_0__", [3, 7, 9])
    with pytest.warns(UserWarning, match="__index_level_0__, the index of a pandas frame, is left out"):
        rows = training_rows(data)
    assert rows.columns == ("question", "answer", "grade")


def test_a_cursor_without_a_result() -> None:
    with pytest.raises(InputTypeError, match="sqlite3.Cursor without a result; expected one: execute a query"):
        training_rows(sqlite3.connect(":memory:").cursor())


def closed_database() -> Any:
    connection = sqlite3.connect(":memory:")
    cursor = connection.execute("select 'a' as question, 'b' as answer")
    connection.close()
    return cursor


def database_of_bytes() -> Any:
    return sqlite3.connect(":memory:").execute("select cast(x'ff61' as text) as question, 'b' as answer")


def arrow_of_bytes() -> Any:
    pyarrow = pytest.importorskip("pyarrow")
    column = pyarrow.array([b"\xffa"]).view(pyarrow.string())
    return pyarrow.table({"question": column, "answer": ["b"]})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (closed_database, "sqlite3.Cursor that cannot be read .ProgrammingError: Cannot operate on a closed database"),
        (database_of_bytes, "sqlite3.Cursor that cannot be read .OperationalError: Could not decode to UTF-8 column"),
        (arrow_of_bytes, "pyarrow.Table that cannot be read .UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_sources_that_cannot_be_read(data: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=f"got a {message}.*; expected rows: fix what it reads, or choose columns"):
        training_rows(data())


def test_texts_of_arrow_that_are_no_utf_8(tmp_path: Path) -> None:
    table = arrow_of_bytes()
    with pytest.raises(InputTypeError, match=r"column question cannot be read \('utf-8' codec can't decode byte 0xff"):
        training_rows({name: table[name] for name in table.column_names})
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r"rows.parquet cannot be read \('utf-8' codec can't decode byte 0xff"):
        training_rows(tmp_path / "rows.parquet")
    assert training_rows(table, columns=["answer"]).texts == {"answer": ["b"]}


def test_columns_that_are_not_chosen_are_not_decoded() -> None:
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("PIL")
    features = datasets.Features(
        {"image": datasets.Image(), "a": datasets.Value("string"), "b": datasets.Value("string")}
    )
    data = datasets.Dataset.from_dict(
        {"image": [{"bytes": b"no image", "path": None}], "a": ["x"], "b": ["y"]}, features=features
    )
    assert training_rows(data, columns=("b", "a")).texts == {"b": ["y"], "a": ["x"]}
    with pytest.raises(InputError, match=r"datasets.Dataset that cannot be read \(UnidentifiedImageError: .* choose"):
        training_rows(data)
    with pytest.raises(InputError, match=r"there is no 'c' in the data; expected some of \['question', 'answer'"):
        training_rows(dataset(), columns=("answer", "c"))


def test_decimals_are_labels() -> None:
    rows = training_rows([("a", "b", Decimal("0.25")), ("c", "d", Decimal(1))])
    assert rows.labels == [0.25, 1.0]


# ---- numbers in files without types ---------------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def file(name: str, content: str) -> Path:
        (tmp_path / name).write_bytes(content.encode())
        return tmp_path / name

    return file


@pytest.mark.parametrize("name", ["relevance", "grade", "Score", "LABEL", "similarity"])
def test_a_last_column_of_numbers_is_the_label(name: str, write: Callable[..., Path]) -> None:
    expected = (["one", "two"], [1.0, 0.5])
    for path in (
        write("rows.csv", f"a,b,{name}\none,x,1\ntwo,y,0.5\n"),
        write("rows.tsv", f"a\tb\t{name}\none\tx\t1\ntwo\ty\t0.5\n"),
        write("rows.jsonl", "\n".join(json.dumps({"a": a, "b": "x", name: v}) for a, v in (("one", 1), ("two", 0.5)))),
    ):
        rows = training_rows(path)
        assert (rows.texts["a"], rows.labels) == expected
        assert rows.label_name == name


@pytest.mark.parametrize(
    ("header", "columns"),
    [(",question,answer", "''"), ("id,question,answer", "'id'"), ("number,question,answer", "'number'")],
)
def test_other_columns_of_numbers_are_refused(header: str, columns: str, write: Callable[..., Path]) -> None:
    path = write("rows.csv", f"{header}\n0,why,so\n1,how,thus\n")
    with pytest.raises(
        InputError, match=rf"holds only numbers in {columns}; expected texts: name the columns"
    ) as caught:
        training_rows(path)
    assert "columns=('question', 'answer') or --columns question,answer" in str(caught.value)
    rows = training_rows(path, columns=("question", "answer"))
    assert rows.texts == {"question": ["why", "how"], "answer": ["so", "thus"]}


@pytest.mark.parametrize("name", ["id", "question_id", "docid", "index"])
def test_an_id_is_no_label(name: str, write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=f"only numbers in '{name}'"):
        training_rows(write("rows.csv", f"a,b,{name}\none,x,1\ntwo,y,2\n"))
    with pytest.raises(InputError, match=f"column {name} holds 1 of type int; expected a text"):
        training_rows([{"a": "one", "b": "x", name: 1}])


def test_texts_that_spell_numbers_here_and_there(write: Callable[..., Path]) -> None:
    rows = training_rows(write("rows.csv", "a,b\n42,x\nforty-two,7\n"))
    assert rows.texts == {"a": ["42", "forty-two"], "b": ["x", "7"]}
    assert training_rows([("1", "2")]).labels is None  # texts that say so


def test_empty_texts_are_counted(write: Callable[..., Path]) -> None:
    with pytest.warns(UserWarning, match=r"2 text\(s\) of column b are empty, the first at .*rows\.csv, line 3: they"):
        training_rows(write("rows.csv", 'a,b\nx,y\nz,\nw," "\n'))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "a;b;score\nx;y;0,5\n", "got the one column 'a;b;score'; expected commas between columns"),
        ("rows.csv", "a\tb\nx\ty\n", r"got the one column 'a\\tb'; expected commas between columns"),
        ("rows.tsv", "a;b\nx;y\n", r"got the one column 'a;b'; .* and tabs in a \.tsv file"),
        ("rows.csv", "", "line 1: got no names of columns; expected them in the first line"),
        ("rows.tsv", "", "line 1: got no names of columns; expected them in the first line"),
    ],
)
def test_files_without_columns(name: str, content: str, message: str, write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=message):
        training_rows(write(name, content))


# ---- quoted TSV -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_tsv_with_quoted_fields(quoting: Any, end: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t", quoting=quoting, lineterminator=end).writerows([list(COLUMNS), *ROWS])
    table = as_table(path)
    assert [table.columns[name] for name in ("question", "answer")] == [COLUMNS["question"], COLUMNS["answer"]]
    assert table.source == f"{path} (quoted fields)"
    assert training_rows(path).describe().startswith(f"3 rows of {path} (quoted fields): texts question + answer")


def test_tsv_as_pandas_writes_it(tmp_path: Path) -> None:
    pandas_frame().to_csv(tmp_path / "rows.tsv", sep="\t", index=False)
    assert training_rows(tmp_path / "rows.tsv").texts["question"] == COLUMNS["question"]


@pytest.mark.parametrize(
    "text",
    ['"Star Wars" is old', '"Star Wars"', 'he said "hello"', '"', 'a "b', '"to be" or "not to be"'],
)
def test_quotes_of_a_tsv_without_quoting_are_texts(text: str, write: Callable[..., Path]) -> None:
    path = write("rows.tsv", f'a\tb\n{text}\tx\nplain\the said "no"\n')
    assert training_rows(path).texts["a"] == [text, "plain"]
    assert as_table(path).source == str(path)


# ---- .json ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(DICTS),
        json.dumps(DICTS, indent=2),
        json.dumps(COLUMNS),
        json.dumps({name: dict(enumerate(values)) for name, values in COLUMNS.items()}),
        "\n".join(map(json.dumps, DICTS)),
    ],
    ids=["rows", "indented", "columns", "columns as pandas", "lines"],
)
def test_json(content: str, write: Callable[..., Path]) -> None:
    rows = training_rows(write("rows.json", content))
    assert rows.texts == {name: COLUMNS[name] for name in ("question", "answer")}
    assert rows.labels == COLUMNS["grade"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "something other than rows; expected a list of objects"),
        ("nothing", "expected JSON: a list of objects"),
        ('[{"a": "x"}, {"b": "y"}]', r"row 1: got the keys \['b'\]; expected \['a'\]"),
        ('{"a": ["x"], "b": []}', "something other than rows"),
        ("[]", "holds no rows"),
    ],
)
def test_json_that_holds_no_rows(content: str, message: str, write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=message):
        training_rows(write("rows.json", content))


# ---- lists of positives and negatives -------------------------------------------------------------------------------


def quiet(data: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return training_rows(data)


def test_negatives_fill_as_many_columns_as_the_longest_list() -> None:
    rows = training_rows([("q", "p", ["a", "b", "c"]), ("r", "s", ["d"]), ("t", "u", ["e", "f"])])
    assert rows.texts == {
        "column_0": ["q", "r", "t"],
        "column_1": ["p", "s", "u"],
        "column_2_1": ["a", "d", "e"],
        "column_2_2": ["b", "d", "f"],
        "column_2_3": ["c", "d", "e"],
    }


def test_a_single_negative_keeps_the_name() -> None:
    rows = training_rows({"anchor": ["q"], "positive": ["p"], "negative": [["n"]]})
    assert rows.texts == {"anchor": ["q"], "positive": ["p"], "negative": ["n"]}


def test_the_form_of_flag_embedding(write: Callable[..., Path]) -> None:
    data = [
        {"query": "q", "pos": ["p"], "neg": ["a", "b"], "pos_scores": [0.9], "neg_scores": [0.1, 0.2], "prompt": ""},
        {"query": "r", "pos": ["s", "t"], "neg": ["c"], "pos_scores": [1.0, 0.8], "neg_scores": [0.3], "prompt": ""},
    ]
    path = write("rows.jsonl", "\n".join(map(json.dumps, data)))
    with pytest.warns(UserWarning, match="left out") as caught:
        rows = training_rows(path)
    assert rows.texts == {
        "query": ["q", "r", "r"],
        "pos": ["p", "s", "t"],
        "neg_1": ["a", "c", "c"],
        "neg_2": ["b", "c", "c"],
    }
    message = str(caught[0].message)
    assert "the columns pos_scores, neg_scores, prompt are left out" in message
    assert "1 rows share their anchor with another one" in message
    assert 'train on them with batch_sampler="no_duplicates"' in message


def test_the_form_of_tevatron() -> None:
    data = {
        "query": ["q"],
        "positive_passages": [[{"docid": "1", "title": "T", "text": "p"}]],
        "negative_passages": [[{"docid": "2", "title": "", "text": "n"}, {"docid": "3", "text": "m"}]],
    }
    rows = training_rows(data)
    assert rows.texts == {
        "query": ["q"],
        "positive_passages": ["T p"],
        "negative_passages_1": ["n"],
        "negative_passages_2": ["m"],
    }


def test_at_most_seven_negatives() -> None:
    with pytest.warns(UserWarning, match="2 negatives beyond the first 7 of a row are left out"):
        rows = training_rows([("q", "p", [f"n{number}" for number in range(9)])])
    assert len(rows.texts) == 9


def test_lists_in_a_dataset() -> None:
    datasets = pytest.importorskip("datasets")
    data = [{"anchor": "q", "positive": "p", "negative": ["a", "b"]}]
    assert training_rows(datasets.Dataset.from_list(data)).columns == ("anchor", "positive", "negative_1", "negative_2")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("q", "p", ["a"]), ("r", "s", [])], "row 1 of the data: column column_2 holds an empty list"),
        ([("q", "p", ["a"]), ("r", "s", "b")], "row 1 of the data: column column_2 holds no list as other rows do"),
        ([("q", "p", ["a"]), ("r", "s", [None])], "column column_2 holds a list with None; expected texts"),
        ([("q", "p", "n"), ("r", "s")], "put several negatives of a row in one list"),
    ],
)
def test_lists_that_cannot_be_expanded(rows: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        quiet(rows)


def test_labels_in_arrays_are_no_lists() -> None:
    rows = training_rows({"a": ["x", "y"], "b": ["z", "w"], "label": [torch.tensor([1.0]), torch.tensor([0.0])]})
    assert rows.labels == [1.0, 0.0]


# ---- rows that would be read as something else ----------------------------------------------------------------------


def test_the_index_of_a_parquet_file_is_left_out(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pandas_frame()
    frame.loc[[0, 2, 1]].to_parquet(tmp_path / "rows.parquet")
    with pytest.warns(UserWarning, match="__index_level_0__, the index of a pandas frame, is left out"):
        rows = training_rows(tmp_path / "rows.parquet")
    assert rows.columns == ("question", "answer", "grade")


def test_a_parquet_file_that_unpacks_to_much_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame({"a": ["x" * 1000] * 2000, "b": ["y"] * 2000}).to_parquet(
        tmp_path / "rows.parquet", compression="zstd"
    )
    monkeypatch.setattr("minisbert.data.readers._LARGEST_UNPACKED", 1000)
    monkeypatch.setattr("minisbert.data.readers._LARGEST_RATIO", 0)
    with pytest.raises(InputError, match=r"its [\d,]+ bytes unpack to [\d,]+; expected at most 0 times"):
        training_rows(tmp_path / "rows.parquet")


@pytest.mark.parametrize(
    "column",
    [
        ["x" * 100_000] * 1000,
        [["x" * 10_000] * 10] * 1000,
        [[{"title": "T", "text": "x" * 100_000}]] * 1000,
        [None] * 200_000,
        [b"x" * 10_000] * 1000,
    ],
    ids=["texts", "lists", "passages", "nulls", "fixed"],
)
def test_a_parquet_file_whose_dictionary_unpacks_to_much_more(
    column: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    kind = pyarrow.binary(10_000) if isinstance(column[0], bytes) else None
    table = pyarrow.table({"a": ["a"] * len(column), "b": pyarrow.array(column, kind)})
    parquet.write_table(table, path, compression="zstd")
    assert sum(parquet.ParquetFile(path).metadata.row_group(0).column(i).total_uncompressed_size for i in (0, 1)) < 2e5
    monkeypatch.setattr("minisbert.data.readers._LARGEST_UNPACKED", 300_000)
    monkeypatch.setattr("minisbert.data.readers._LARGEST_RATIO", 1)
    with pytest.raises(InputError, match=r"its [\d,]+ bytes unpack to [\d,]{7,}; expected at most 1 times"):
        as_table(path)
    monkeypatch.setattr("minisbert.data.readers._LARGEST_UNPACKED", 200_000_000)
    assert as_table(path).columns["b"] == column


def test_a_data_set_of_fewer_rows_than_it_says() -> None:
    class Longer(MapStyle):
        def __len__(self) -> int:
            return len(DICTS) + 1

    with pytest.raises(InputError, match=rf"Longer of {len(DICTS) + 1} rows that lacks one .*: fix its __len__"):
        as_table(Longer())


def test_columns_of_one_name_in_arrow(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path, columns = tmp_path / "rows.parquet", [arrow.array(["a", "b"]), arrow.array(["c", "d"]), arrow.array([1, 0])]
    twice = arrow.Table.from_arrays(columns, names=["x", "x", "score"])
    parquet.write_table(twice, path)
    with pytest.raises(InputError, match="^got several columns called 'x'; expected a different name for each"):
        as_table(twice)
    with pytest.raises(InputError, match=r"rows\.parquet: got several columns called 'x'; expected a different name"):
        as_table(path)
    struct = arrow.StructArray.from_arrays(columns[:2], names=["x", "x"])
    parquet.write_table(arrow.table({"s": struct}), path)
    with pytest.raises(InputError, match=r"rows\.parquet cannot be read \(.*duplicate field names are present"):
        as_table(path)
    with pytest.raises(InputTypeError, match="column s cannot be read .*duplicate field names are present"):
        as_table({"s": struct})


def test_parquet_of_every_type_of_column(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {
        "text": ["one", "two", None],
        "category": pyarrow.array(["x", "x", "y"]).dictionary_encode(),
        "codes": pyarrow.array([5, 5, 6]).dictionary_encode(),
        "bytes": [b"a", b"b", b"c"],
        "map": pyarrow.array([[("k", "v")], [], None], pyarrow.map_(pyarrow.string(), pyarrow.string())),
        "fixed": pyarrow.array([["a", "b"]] * 3, pyarrow.list_(pyarrow.string(), 2)),
        "passages": [[{"text": "t", "ids": ["1", "2"]}], [], None],
        "large": pyarrow.array(["one", "two", "three"], pyarrow.large_string()),
        "flag": [True, False, None],
    }
    table = pyarrow.table(columns)
    parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=2)
    assert as_table(tmp_path / "rows.parquet").columns == table.to_pydict()


def test_cursors_with_rows_of_other_kinds() -> None:
    def as_dict(cursor: sqlite3.Cursor, row: Any) -> dict[str, Any]:
        return dict(zip((column[0] for column in cursor.description), row, strict=True))

    assert training_rows(database(as_dict)).texts["question"] == COLUMNS["question"]
    with pytest.raises(InputTypeError, match="got a str as a row of a cursor; expected the values of"):
        training_rows(database(lambda cursor, row: row[0]))


@pytest.mark.parametrize("column", [{"0": "x", "1": "y"}, {"x", "y"}])
def test_columns_without_an_order_of_rows(column: Any) -> None:
    with pytest.raises(InputTypeError, match="column a is a (dict|set); expected a list"):
        training_rows({"a": column, "b": ["1", "2"]})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"a": {"0": "x", "1": "w"}, "b": {"0": "y"}}, "expected the same keys in each column"),
        ({"a": {"0": "x"}, "b": ["y"]}, "expected the same keys in each column"),
        ({"0": {"a": "x", "b": "y"}, "1": {"a": "z", "b": "w"}}, "holds rows by name"),
    ],
)
def test_json_of_a_frame_in_other_orders(data: Any, message: str, write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=message):
        training_rows(write("rows.json", json.dumps(data)))


def test_json_of_a_frame_is_paired_by_its_index(write: Callable[..., Path]) -> None:
    path = write("rows.json", json.dumps({"a": {"0": "x", "1": "w"}, "b": {"1": "y", "0": "z"}}))
    assert training_rows(path).texts == {"a": ["x", "w"], "b": ["z", "y"]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([{"query": "q", "neg_1": "own", "neg": ["a", "b"]}], "has a column neg_1 beside the lists of neg"),
        ([{1: "a", "1": "b"}], "several columns called '1'"),
        ({1: ["a"], "1": ["b"]}, "several columns called '1'"),
        ({"a": ["x"], "b": ["y"], "made": np.array(["2020"], "datetime64[ns]")}, "column made holds"),
        ([("a", "b", np.timedelta64(1, "s"))], "column column_2 holds"),
        (
            {"a": ["x", "y"], "b": ["z", "w"], "label": list(np.ma.array([1.0, 2.0], mask=[0, 1]))},
            "finite number as label",
        ),
        ([{"type": ["a"], "prompt": ["b"]}], "no columns of texts"),
        ([{"pos_embedding": [0.1, 0.2], "a": "x"}], "holds a list with 0.1; expected texts"),
        ([{"q": "x", "passages": [{"title": "T", "text": None}]}], "holds a list with {'text': None, 'title': 'T'}"),
    ],
)
def test_rows_that_are_refused(data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        quiet(data)


class Loader(torch.utils.data.DataLoader[Any]): ...


@pytest.mark.parametrize("kind", [torch.utils.data.DataLoader, Loader])
@pytest.mark.parametrize("options", [{}, {"batch_size": 2}, {"batch_sampler": [[0, 1], [2]]}])
@pytest.mark.parametrize("rows", [DICTS, ROWS])
def test_batches_are_no_rows(kind: Any, options: dict[str, Any], rows: Any) -> None:
    loader = kind(rows, **options, collate_fn=list)
    message = "got a DataLoader, which gives batches; expected rows: pass its dataset, or call model.fit"
    with pytest.raises(InputTypeError, match=message):
        as_table(loader)
    named = named_datasets({"one": loader, "two": loader})
    assert named is not None
    with pytest.raises(InputTypeError, match=message):
        as_table(named["one"])
    assert training_rows(kind(rows, batch_size=None)).labels == COLUMNS["grade"]  # which gives rows


def test_a_transform_of_a_dataset_is_not_left_out() -> None:
    with pytest.raises(InputTypeError, match="Dataset with a transform; expected rows: use map in place"):
        training_rows(dataset().with_transform(lambda batch: batch))


def test_columns_of_lists_are_no_data_sets() -> None:
    assert named_datasets({"pos": [["a", "b"]], "neg": [["c", "d"]]}) is None


@pytest.mark.parametrize(
    "data",
    [
        {"one": [("a", "b")], "two": [("c", "d")]},
        {"one": [["a", "b"]], "two": [("c", "d")]},
        {"one": [["a", "b", 1.0]], "two": [["c", "d", 0.0]]},
        {"one": [["a", "b"]], "two": [["c", "d"], ["e", "f"]]},  # columns are of one length
        {"one": [["a", "b"]]},
    ],
)
def test_lists_of_lists_that_are_data_sets(data: Any) -> None:
    assert named_datasets(data) is data


def test_lists_of_lists_that_may_be_either() -> None:
    message = (
        r"for \['left', 'right'\], which may be data sets or columns of lists; expected one of them: make each row"
    )
    with pytest.raises(InputError, match=message):
        named_datasets({"left": [["a", "b"]], "right": [["c", "d"]]})
    rows = training_rows([{"left": ["a", "b"], "right": ["c", "d"]}])
    assert rows.columns == ("left_1", "left_2", "right_1", "right_2")


def test_chosen_columns_are_not_left_out() -> None:
    rows = training_rows([{"type": "t", "pos": ["p"], "neg": ["n"]}], columns=["type", "pos"])
    assert rows.texts == {"type": ["t"], "pos": ["p"]}
