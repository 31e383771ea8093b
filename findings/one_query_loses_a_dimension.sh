#!/usr/bin/env bash
# usearch 2.26.6, numpy 2.4.6, Python 3.11.
#
# Index.search of a batch gives keys of shape (queries, k) and one count for each query, but of a batch of one query,
# (1, dim), it gives keys of shape (k,) and no counts, as of one vector. Code that reads batches of queries fails or, if
# it loops over keys, takes each key for a query, when the last batch happens to have one.
#
# Output seen (shape of the queries: class of the result, shape of its keys, whether it has counts):
#   (2, 4): BatchMatches, (2, 3), True
#   (1, 4): Matches, (3,), False
#   (4,): Matches, (3,), False
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet usearch==2.26.6 numpy==2.4.6
venv/bin/python - <<'PY'
import sys

import numpy as np
from usearch.index import Index

rows = np.eye(4, dtype=np.float32)
index = Index(ndim=4, metric="cos", dtype="f32")
index.add(np.arange(4), rows)
shapes = []
for queries in (rows[:2], rows[:1], rows[0]):
    found = index.search(queries, 3)
    shapes.append(found.keys.shape)
    print(f"{queries.shape}: {type(found).__name__}, {found.keys.shape}, {hasattr(found, 'counts')}")
sys.exit(None if shapes == [(2, 3), (3,), (3,)] else "the behaviour has changed")
PY
