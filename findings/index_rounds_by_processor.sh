#!/usr/bin/env bash
# usearch 2.26.6, numpy 2.4.6, Python 3.11.
#
# Index(ndim=384, metric="cos") keeps float32 rows in the type that the processor is fast with: bfloat16, else float16,
# else float32. The same program therefore gives other neighbours on another machine. In bfloat16 even a search with
# exact=True puts near neighbours in another order, and get() returns other numbers than were added, as float32.
# dtype="f32" keeps the numbers. (On a processor with neither type the script says so and cannot show it.)
#
# Output seen (x86-64 with bfloat16 instructions; 2,000 random rows of length 1, 50 queries, the ten best):
#   default: stored as BF16, rows returned differ by 5e-04, queries with another order than float32: 12 of 50
#   dtype="f32": stored as F32, rows returned differ by 0e+00, queries with another order than float32: 0 of 50
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


def unit(rows: int) -> np.ndarray:
    values = draw.normal(size=(rows, 384)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


draw = np.random.default_rng(0)
corpus, queries = unit(2_000), unit(50)
expected = np.argsort(-(queries @ corpus.T), axis=1, kind="stable")[:, :10]
same = True
for name, options in (("default", {}), ('dtype="f32"', {"dtype": "f32"})):
    index = Index(ndim=384, metric="cos", **options)
    index.add(np.arange(len(corpus)), corpus)
    keys = index.search(queries, 10, exact=True).keys
    kind = str(index.dtype).removeprefix("ScalarKind.")
    error = np.abs(index.get(np.arange(len(corpus))) - corpus).max()
    other = int((keys != expected).any(axis=1).sum())
    print(f"{name}: stored as {kind}, rows returned differ by {error:.0e}, ", end="")
    print(f"queries with another order than float32: {other} of 50")
    if not options and kind == "F32":
        sys.exit("this processor is fast with neither bfloat16 nor float16")
    same &= (error == 0 and other == 0) if options else (error > 1e-5 and other > 0)
sys.exit(None if same else "the behaviour has changed")
PY
