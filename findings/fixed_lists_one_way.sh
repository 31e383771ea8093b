#!/usr/bin/env bash
# pyspark 4.3.0, pyarrow 26.0.1, pandas 2.3.3, Python 3.11, Java 17 (which must be there already).
#
# Embeddings are lists of a fixed size in Arrow. Spark's createDataFrame reads a table with such a column as
# array<float>. mapInArrow, in a query that declares the same array<float>, refuses the same column from a Python
# function: the batches fail in the reader of the JVM, at run time. The same rows as lists of any size are read.
#
# Output seen:
#   createDataFrame, fixed size: [[1.0, 2.0], [3.0, 4.0]]
#   mapInArrow, any size: [[1.0, 2.0], [3.0, 4.0]]
#   mapInArrow, fixed size: [UNSUPPORTED_ARROWTYPE] Unsupported arrow type FixedSizeList(2). SQLSTATE: 0A000
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pyspark==4.3.0 pyarrow==26.0.1 pandas==2.3.3
PYSPARK_PYTHON="$folder/venv/bin/python" venv/bin/python -W ignore - 2>spark.log <<'PY' || { tail -3 spark.log; exit 1; }
import sys

import pyarrow as pa
from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
KINDS = {"any size": pa.list_(pa.float32()), "fixed size": pa.list_(pa.float32(), 2)}
VALUES = [[1.0, 2.0], [3.0, 4.0]]


def mapped(kind: pa.DataType):
    def rows(batches):
        for _ in batches:
            yield pa.RecordBatch.from_pydict({"vector": pa.array(VALUES, kind)})

    return spark.range(2).coalesce(1).mapInArrow(rows, "vector array<float>")


made = spark.createDataFrame(pa.table({"vector": pa.array(VALUES, KINDS["fixed size"])}))
found = {"createDataFrame, fixed size": made}
found.update({f"mapInArrow, {name}": mapped(kind) for name, kind in KINDS.items()})
seen = []
for name, frame in found.items():
    try:
        seen.append(str([list(row.vector) for row in frame.collect()]))
    except Exception as error:
        seen.append(next(line for line in str(error).splitlines() if "UNSUPPORTED" in line))
    print(f"{name}: {seen[-1]}")
same = seen[:2] == [str(VALUES)] * 2 and "Unsupported arrow type FixedSizeList(2)" in seen[2]
sys.exit(None if same else "the behaviour has changed")
PY
