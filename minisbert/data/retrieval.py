"""Retrieval data in the folder layout of BEIR: a corpus, queries, and which documents are relevant to which query.

    corpus.jsonl                      _id, title (may be missing), text
    queries.jsonl                     _id, text; queries_<split>.jsonl goes before it
    qrels/<split>.tsv                 query-id, corpus-id, score; also qrels_<split>.tsv, or qrels.tsv

Each file may also end in .gz.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..opening import is_file
from .table import Table, as_table

_ENDINGS = ("", ".gz")


@dataclass(frozen=True)
class RetrievalData:
    """What to find where.

    Attributes:
        queries: texts by id.
        corpus: texts by id.
        relevant_docs: ids of relevant documents by query id.
    """

    queries: dict[str, str]
    corpus: dict[str, str]
    relevant_docs: dict[str, set[str]]


def read_retrieval(folder: Path, *, split: str | None = None, titles: bool = True) -> RetrievalData:
    """Read a folder of retrieval data.

    Args:
        folder: see above for what is in it.
        split: which relevance file; by default "test", then qrels.tsv, then the only one there is.
        titles: put a document's title and a blank before its text.

    Raises:
        InputError: a file is missing or broken, or names an id that is nowhere else.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; expected one with retrieval data: check its name")
    qrels = _relevance_file(folder, split)
    split = qrels.name.partition(".")[0].removeprefix("qrels").removeprefix("_")
    corpus = as_table(_first(folder, "corpus.jsonl"))
    queries = as_table(_first(folder, f"queries_{split}.jsonl", "queries.jsonl"))
    documents = _by_id(corpus, with_title=titles and "title" in corpus.columns)
    questions = _by_id(queries, with_title=False)
    return RetrievalData(questions, documents, _relevant(as_table(qrels), questions, documents))


def _relevance_file(folder: Path, split: str | None) -> Path:
    names = [f"qrels/{split or 'test'}.tsv", f"qrels_{split or 'test'}.tsv", *(() if split else ("qrels.tsv",))]
    found = _existing(folder, *names)
    if found is not None:
        return found
    others = sorted(
        path
        for ending in _ENDINGS
        for pattern in ("qrels/*.tsv", "qrels_*.tsv")
        for path in folder.glob(pattern + ending)
    )
    if split is None and len(others) == 1:
        return others[0]
    there = [str(path.relative_to(folder)) for path in others]
    raise InputError(
        f"{folder} has {f'the relevance files {there}' if there else 'no relevance file'}; expected "
        f"{' or '.join(names)} (also .gz): {'choose a split' if there else 'add it'}"
    )


def _first(folder: Path, *names: str) -> Path:
    found = _existing(folder, *names)
    if found is None:
        raise InputError(f"there is no {' or '.join(names)} in {folder}; expected one of them (also .gz): add it")
    return found


def _existing(folder: Path, *names: str) -> Path | None:
    places = (folder / (name + ending) for name in names for ending in _ENDINGS)
    return next((place for place in places if is_file(place)), None)


def _by_id(table: Table, *, with_title: bool) -> dict[str, str]:
    _need(table, ["_id", "text"])
    texts: dict[str, str] = {}
    columns = ["title", "text"] if with_title else ["text"]
    for row, key in enumerate(table.columns["_id"]):
        parts = [table.columns[name][row] for name in columns]
        parts = ["" if name == "title" and part is None else part for name, part in zip(columns, parts, strict=True)]
        if not isinstance(key, (str, int)) or not all(isinstance(part, str) for part in parts):
            raise InputError(f"{table.at(row)}: expected an _id and texts in {', '.join(columns)}: mend the line")
        if str(key) in texts:
            raise InputError(f"{table.at(row)}: got the _id {key} a second time; expected each once: drop the line")
        texts[str(key)] = " ".join(parts).strip()
    return texts


def _relevant(table: Table, queries: Mapping[str, str], corpus: Mapping[str, str]) -> dict[str, set[str]]:
    # Some writers spell the columns with underscores, or call the second one doc.
    names = {name: name.replace("_", "-").replace("doc-", "corpus-") for name in table.columns}
    table = Table({names[name]: values for name, values in table.columns.items()}, table.source, table.lines)
    _need(table, ["query-id", "corpus-id", "score"])
    relevant: dict[str, set[str]] = {}
    columns = (table.columns[name] for name in ("query-id", "corpus-id", "score"))
    for row, (query, document, score) in enumerate(zip(*columns, strict=True)):
        for key, known, file in ((query, queries, "queries"), (document, corpus, "corpus")):
            if key not in known:
                raise InputError(f"{table.at(row)}: got the id {key!r}; expected one of the {file}: drop the line")
        try:
            counts = float(score) > 0
        except (ValueError, OverflowError):
            raise InputError(f"{table.at(row)}: got the score {score!r}; expected a number: mend the line") from None
        if counts:
            relevant.setdefault(query, set()).add(document)
    return relevant


def _need(table: Table, names: list[str]) -> None:
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise InputError(
            f"{table.source} has {list(table.columns)}; expected {', '.join(names)}: {missing[0]} is missing"
        )
