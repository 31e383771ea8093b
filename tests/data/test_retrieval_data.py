"""Retrieval folders in the layout of BEIR."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from minisbert.data.retrieval import read_retrieval
from minisbert.errors import InputError

CORPUS = [
    {"_id": "d1", "title": "Cats", "text": "sleep a lot.", "metadata": {}},
    {"_id": "d2", "title": "", "text": "Dogs run.", "metadata": {}},
    {"_id": "d3", "title": None, "text": " The sea. ", "metadata": {}},
]
QUERIES = [{"_id": "q1", "text": "who sleeps?"}, {"_id": "q2", "text": "who runs?"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\td2\t2\nq2\td3\t1\n"


def folder(root: Path, **files: Any) -> Path:
    """Write files: rows as JSON lines, texts as they are; `__` in a name is a slash, `_dot_` a dot."""
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return root


def test_a_folder_of_beir(tmp_path: Path) -> None:
    data = read_retrieval(
        folder(tmp_path, corpus_dot_jsonl=CORPUS, queries_dot_jsonl=QUERIES, qrels__test_dot_tsv=QRELS)
    )
    assert data.corpus == {"d1": "Cats sleep a lot.", "d2": "Dogs run.", "d3": "The sea."}
    assert data.queries == {"q1": "who sleeps?", "q2": "who runs?"}
    assert data.relevant_docs == {"q1": {"d1"}, "q2": {"d2", "d3"}}
    assert read_retrieval(tmp_path, titles=False).corpus["d1"] == "sleep a lot."


def test_packed_files_with_other_names(tmp_path: Path) -> None:
    plain = [{"_id": row["_id"], "text": row["text"]} for row in CORPUS]
    header = QRELS.replace("query-id", "query_id").replace("corpus-id", "doc_id")
    data = read_retrieval(
        folder(
            tmp_path,
            corpus_dot_jsonl_dot_gz=plain,
            queries_dev_dot_jsonl_dot_gz=QUERIES,
            queries_dot_jsonl=[{"_id": "other", "text": "not these"}],
            qrels_dev_dot_tsv_dot_gz=header,
        )
    )
    assert data.corpus["d1"] == "sleep a lot."
    assert data.queries.keys() == {"q1", "q2"}
    assert data.relevant_docs == {"q1": {"d1"}, "q2": {"d2", "d3"}}


def test_objects_may_have_different_keys(tmp_path: Path) -> None:
    corpus = [
        {"_id": "d1", "text": "sleep a lot."},
        {"_id": "d2", "title": "Dogs", "text": "run.", "metadata": {}},
        {"title": "The sea", "_id": "d3", "text": "is salty."},
    ]
    queries = [QUERIES[0], {**QUERIES[1], "metadata": {"from": "a log"}}]
    data = read_retrieval(
        folder(tmp_path, corpus_dot_jsonl=corpus, queries_dot_jsonl=queries, qrels__test_dot_tsv=QRELS)
    )
    assert data.corpus == {"d1": "sleep a lot.", "d2": "Dogs run.", "d3": "The sea is salty."}
    assert data.queries == {"q1": "who sleeps?", "q2": "who runs?"}


@pytest.mark.parametrize("comment", ["# made by hand\n", "#\n\n# judged in 2020\n", "#query 0 document score\n", "\n"])
def test_comments_before_the_rows_of_trec(comment: str, tmp_path: Path) -> None:
    here = folder(tmp_path, **{**GOOD, "qrels__test_dot_tsv": f"{comment}q1 0 d1 1\nq2 0 d2 2\nq2 0 d3 0\n"})
    assert read_retrieval(here).relevant_docs == {"q1": {"d1"}, "q2": {"d2"}}
    folder(here, qrels__test_dot_tsv=f"{comment}q1 0 d1 1\n# more\n")
    with pytest.raises(InputError, match=rf"line {comment.count(chr(10)) + 2}: got 2 field"):
        read_retrieval(here)


def test_an_id_that_begins_like_a_comment(tmp_path: Path) -> None:
    files = {**GOOD, "queries_dot_jsonl": [{"_id": "#1", "text": "who?"}], "qrels__test_dot_tsv": "#1 0 d1 1\n"}
    assert read_retrieval(folder(tmp_path, **files)).relevant_docs == {"#1": {"d1"}}


def test_which_relevance_file(tmp_path: Path) -> None:
    here = folder(tmp_path, corpus_dot_jsonl=CORPUS, queries_dot_jsonl=QUERIES)
    head, q1 = QRELS.split("\n")[:2]

    def relevant(split: str | None = None) -> dict[str, set[str]]:
        return read_retrieval(here, split=split).relevant_docs

    folder(here, qrels__train_dot_tsv=f"{head}\n{q1}\n")
    assert relevant() == {"q1": {"d1"}}  # the only one
    folder(here, qrels__dev_dot_tsv=f"{head}\nq1\td2\t1\n")
    with pytest.raises(InputError, match=r"'qrels/dev.tsv', 'qrels/train.tsv'.*qrels/test.tsv.*choose a split"):
        relevant()
    folder(here, qrels_dot_tsv=f"{head}\nq1\td3\t1\n")
    assert relevant() == {"q1": {"d3"}}
    folder(here, qrels__test_dot_tsv=f"{head}\nq2\td3\t1\n")
    assert relevant() == {"q2": {"d3"}}
    assert relevant("train") == {"q1": {"d1"}}
    assert relevant("dev") == {"q1": {"d2"}}
    with pytest.raises(InputError, match=r"qrels/validation.tsv or qrels_validation.tsv"):
        relevant("validation")


GOOD: dict[str, Any] = {"corpus_dot_jsonl": CORPUS, "queries_dot_jsonl": QUERIES, "qrels__test_dot_tsv": QRELS}


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        ({"qrels__test_dot_tsv": None}, ["no relevance file", "qrels/test.tsv", "add it"]),
        ({"corpus_dot_jsonl": None}, ["no corpus.jsonl"]),
        ({"queries_dot_jsonl": None}, ["no queries_test.jsonl or queries.jsonl"]),
        ({"corpus_dot_jsonl": [{"id": "d1", "text": "x"}]}, ["corpus.jsonl", "['id', 'text']", "_id is missing"]),
        ({"corpus_dot_jsonl": [{"_id": "d1", "text": None}]}, ["corpus.jsonl, line 1", "texts in text"]),
        ({"queries_dot_jsonl": [QUERIES[0], QUERIES[0]]}, ["queries.jsonl, line 2", "q1 a second time"]),
        ({"qrels__test_dot_tsv": QRELS + "q9\td1\t1\n"}, ["test.tsv, line 6", "'q9'", "one of the queries"]),
        ({"qrels__test_dot_tsv": QRELS + "q1\td9\t1\n"}, ["test.tsv, line 6", "'d9'", "one of the corpus"]),
        ({"qrels__test_dot_tsv": QRELS + "q1\td2\thigh\n"}, ["test.tsv, line 6", "'high'", "number"]),
        ({"qrels__test_dot_tsv": "q1\td1\t1\nq1\td2\t1\n"}, ["line 1: got ['q1', 'd1', '1']", "names query-id, "]),
        ({"qrels__test_dot_tsv": "q1\td1\t1\n"}, ["line 1: got ['q1', 'd1', '1']", "names query-id, corpus-id"]),
        ({"qrels__test_dot_tsv": "q1 0 d1 1\nq1 0 d2\n"}, ["test.tsv, line 2", "3 field(s)", "document and score"]),
        ({"qrels__test_dot_tsv": QRELS.split("\n")[0] + "\n"}, ["test.tsv", "no rows"]),
        ({"qrels__test_dot_tsv": "# nothing\n"}, ["test.tsv"]),
        (
            {"qrels__test_dot_tsv": "query-id\tcorpus-id\tdoc-id\tscore\nq1\td1\td2\t1\n"},
            ["test.tsv has the columns corpus-id and doc-id; expected one: remove"],
        ),
        (
            {"qrels__test_dot_tsv": "query_id\tquery-id\tdoc-id\tscore\nq1\tq2\td2\t1\n"},
            ["test.tsv has the columns query_id and query-id; expected one: remove"],
        ),
        ({"corpus_dot_jsonl": [CORPUS[0], {"_id": "d2", "title": "Dogs"}]}, ["corpus.jsonl, line 2", "title, text"]),
        ({"corpus_dot_jsonl": [CORPUS[0], {"text": "Dogs"}]}, ["corpus.jsonl, line 2", "expected an _id"]),
    ],
)
def test_folders_that_cannot_be_read(files: dict[str, Any], parts: list[str], tmp_path: Path) -> None:
    chosen = {name: content for name, content in {**GOOD, **files}.items() if content is not None}
    with pytest.raises(InputError) as caught:
        read_retrieval(folder(tmp_path, **chosen))
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder .*none"):
        read_retrieval(tmp_path / "none")
