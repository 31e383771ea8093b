"""Read retrieval data in the folder layout of BEIR: a corpus, queries, and the relevant documents of each query.

    corpus.jsonl                      _id, title (may be missing), text
    queries.jsonl                     _id, text; queries_<split>.jsonl is preferred
    qrels/<split>.tsv                 query-id, corpus-id, score; also qrels_<split>.tsv, or qrels.tsv

Each file may also end in .gz. Objects may have other keys, each in some lines only. The relevance file may be TREC's,
without a header: query, a column that is not used, document, score, with blanks or tabs between them, and lines that
start with # before the first of them; it may end in .txt or .trec too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from typing import Any

from ..errors import InputError, shown
from ..storage.files import is_file
from .readers import read_lines, read_objects
from .rows import Table, as_table

_ENDINGS = ("", ".gz")
_QRELS = (".tsv", ".txt", ".trec")


@dataclass(frozen=True)
class RetrievalData:
    """Queries, documents, and their relevance.

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
        folder: laid out as above.
        split: of the relevance file; by default "test", then qrels.tsv, then the only one in the folder.
        titles: put a document's title and a space before its text.

    Raises:
        InputError: a file is missing or broken, or refers to an unknown id.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; expected one with retrieval data: check the name")
    qrels = _relevance_file(folder, split)
    split = qrels.name.partition(".")[0].removeprefix("qrels").removeprefix("_")
    corpus = _read_objects(_first(folder, "corpus.jsonl"))
    queries = _read_objects(_first(folder, f"queries_{split}.jsonl", "queries.jsonl"))
    documents = _texts_by_id(corpus, titles=titles and "title" in corpus.columns)
    questions = _texts_by_id(queries, titles=False)
    return RetrievalData(questions, documents, _relevant(_read_qrels(qrels), questions, documents))


def _relevance_file(folder: Path, split: str | None) -> Path:
    stems = [f"qrels/{split or 'test'}", f"qrels_{split or 'test'}", *(() if split else ("qrels",))]
    names = [f"{stem}.tsv" for stem in stems]
    if file := _existing(folder, *(stem + kind for kind in _QRELS for stem in stems)):
        return file
    patterns = [stem + kind + ending for stem in ("qrels/*", "qrels_*") for kind in _QRELS for ending in _ENDINGS]
    others = sorted(path for pattern in patterns for path in folder.glob(pattern))
    if split is None and len(others) == 1:
        return others[0]
    got = f"the relevance files {[str(path.relative_to(folder)) for path in others]}" if others else "no relevance file"
    raise InputError(
        f"{folder} has {got}; expected {' or '.join(names)} (also .gz): {'choose a split' if others else 'add it'}"
    )


def _read_objects(path: Path) -> Table:
    content = read_objects(path, ("_id", "title", "text"))
    return as_table(Table(content.columns, content.source, content.lines))


def _read_qrels(path: Path) -> Table:
    numbered = ((number, line.split()) for number, line in enumerate(read_lines(path), start=1))
    lines = list(dropwhile(lambda line: _is_comment(line[1]), numbered))
    if lines and not _is_trec(lines[0][1]) and _is_number(lines[0][1][-1]):
        got = f"{path}, line {lines[0][0]}: got {shown(lines[0][1])}"
        raise InputError(f"{got}; expected the names query-id, corpus-id and score in the first line: add them")
    if not lines or not _is_trec(lines[0][1]):
        return as_table(path)
    while not lines[-1][1]:
        lines.pop()
    table = Table({"query-id": [], "corpus-id": [], "score": []}, str(path), [number for number, _ in lines])
    for row, (_, fields) in enumerate(lines):
        if len(fields) != 4:
            raise table.error(row, f"got {len(fields)} field(s); expected query, 0, document and score: fix the line")
        for name, value in zip(table.columns, (fields[0], *fields[2:]), strict=True):
            table.columns[name].append(value)
    return table


def _is_comment(fields: Sequence[str]) -> bool:
    return not fields or not fields[0].strip("#") or (fields[0].startswith("#") and not _is_trec(fields))


def _is_trec(fields: Sequence[str]) -> bool:
    return len(fields) == 4 and _is_number(fields[3])


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False


def _first(folder: Path, *names: str) -> Path:
    if file := _existing(folder, *names):
        return file
    raise InputError(f"there is no {' or '.join(names)} in {folder}; expected one of them (also .gz): add it")


def _existing(folder: Path, *names: str) -> Path | None:
    paths = (folder / (name + ending) for name in names for ending in _ENDINGS)
    return next(filter(is_file, paths), None)


def _texts_by_id(table: Table, *, titles: bool) -> dict[str, str]:
    names = ["title", "text"] if titles else ["text"]
    keys, *columns = _columns(table, "_id", *names)
    if titles:
        columns[0] = ["" if title is None else title for title in columns[0]]
    texts: dict[str, str] = {}
    for row, (key, *parts) in enumerate(zip(keys, *columns, strict=True)):
        if not isinstance(key, (str, int)) or not all(isinstance(part, str) for part in parts):
            raise table.error(row, f"expected an _id and texts in {', '.join(names)}: fix the line")
        if str(key) in texts:
            raise table.error(row, f"got the _id {key} a second time; expected each once: drop the line")
        texts[str(key)] = " ".join(parts).strip()
    return texts


def _relevant(table: Table, queries: Mapping[str, str], corpus: Mapping[str, str]) -> dict[str, set[str]]:
    # Some writers spell the columns with underscores, or call the second one doc.
    names = {name: name.replace("_", "-").replace("doc-", "corpus-") for name in table.columns}
    for wanted in ("query-id", "corpus-id"):
        if len(same := [name for name in names if names[name] == wanted]) > 1:
            raise InputError(f"{table.source} has the columns {' and '.join(same)}; expected one: remove the other")
    table = Table({names[name]: values for name, values in table.columns.items()}, table.source, table.lines)
    relevant: dict[str, set[str]] = {}
    columns = _columns(table, "query-id", "corpus-id", "score")
    for row, (query, document, score) in enumerate(zip(*columns, strict=True)):
        for key, known, file in ((query, queries, "queries"), (document, corpus, "corpus")):
            if key not in known:
                raise table.error(row, f"got the id {key!r}; expected one of the {file}: drop the line")
        if not _is_number(score):
            raise table.error(row, f"got the score {score!r}; expected a number: fix the line")
        if float(score) > 0:
            relevant.setdefault(query, set()).add(document)
    return relevant


def _columns(table: Table, *names: str) -> list[list[Any]]:
    missing = [name for name in names if name not in table.columns]
    if missing:
        got, expected = list(table.columns), ", ".join(names)
        raise InputError(f"{table.source} has {got}; expected {expected}: {missing[0]} is missing")
    return [table.columns[name] for name in names]
