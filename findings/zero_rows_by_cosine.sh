#!/usr/bin/env bash
# lancedb 0.40.0, pyarrow 26.0.1, sqlite-vec 0.1.9, usearch 2.26.6, hnswlib 0.8.0, numpy 2.4.6, Python 3.11.
#
# A row of zeros among rows that are searched by cosine distance, each store asked for as many rows as it holds.
# USearch and hnswlib say distance 1. LanceDB never finds the row, nor anything for a query of zeros, and says nothing.
# In sqlite-vec its distance is NULL, which "order by distance" puts before the best row; asked for fewer rows, it
# leaves the row out.
#
# Output seen (ids, best first, of five rows of which row 2 is zeros | ids for a query of zeros):
#   usearch: [4, 2, 0, 3, 1] | [2, 4, 3, 1, 0]
#   hnswlib: [4, 2, 0, 3, 1] | [0, 1, 2, 3, 4]
#   lancedb: [4, 0, 3, 1] | []
#   sqlite-vec: [2, 4, 0, 3, 1] | [0, 1, 2, 3, 4]
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet lancedb==0.40.0 pyarrow==26.0.1 sqlite-vec==0.1.9 usearch==2.26.6 hnswlib==0.8.0 \
    numpy==2.4.6 pysqlite3-binary==0.5.4.post2
venv/bin/python - <<'PY'
import sys

import hnswlib
import lancedb
import numpy as np
import pyarrow as pa
import pysqlite3 as sqlite3  # some builds of Python cannot load extensions with their own
import sqlite_vec
from usearch.index import Index

draw = np.random.default_rng(0)
rows = draw.normal(size=(1000, 384)).astype(np.float32)[:5]
rows[2] = 0
query = draw.normal(size=384).astype(np.float32)
zero = np.zeros(384, np.float32)
found = {}

index = Index(ndim=384, metric="cos", dtype="f32")
index.add(np.arange(5), rows)
found["usearch"] = [index.search(one, 5, exact=True).keys.tolist() for one in (query, zero)]

graph = hnswlib.Index("cosine", 384)
graph.init_index(5)
graph.add_items(rows, np.arange(5))
found["hnswlib"] = [graph.knn_query(one[None], 5)[0][0].tolist() for one in (query, zero)]

vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 384)
table = lancedb.connect("lance").create_table("rows", pa.table({"id": range(5), "vector": vectors}))
found["lancedb"] = [
    table.search(one).distance_type("cosine").limit(5).to_arrow()["id"].to_pylist() for one in (query, zero)
]

database = sqlite3.connect(":memory:")
database.enable_load_extension(True)
sqlite_vec.load(database)
database.execute("create virtual table rows using vec0(vector float[384] distance_metric=cosine)")
values = [(number, row.tobytes()) for number, row in enumerate(rows)]
database.executemany("insert into rows(rowid, vector) values (?, ?)", values)
select = "select rowid from rows where vector match ? and k = 5 order by distance"
found["sqlite-vec"] = [[row for (row,) in database.execute(select, (one.tobytes(),))] for one in (query, zero)]

for name, (ids, nothing) in found.items():
    print(f"{name}: {ids} | {nothing}")
best, dropped = found["hnswlib"][0], found["lancedb"]
same = found["usearch"][0] == best and dropped == [[i for i in best if i != 2], []]
same &= found["sqlite-vec"][0] == [2, *dropped[0]]
sys.exit(None if same else "the behaviour has changed")
PY
