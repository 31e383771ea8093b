#!/usr/bin/env bash
# datasets 5.2.0, pyarrow 26.0.1, Python 3.11.
#
# load_dataset("json") changes values that JSON itself marks clearly. If every string of a column looks like a date, as
# in a file of short texts or of names by day, the column becomes a timestamp, and "2021-01-01 10:00" comes back as a
# datetime; one other text anywhere in the block keeps the strings. Whole numbers above the range of int64, such as
# 64-bit hashes used as ids, become floats, so that different ids are equal. Dataset.from_list keeps the strings.
#
# Output seen:
#   two dates: timestamp[s] [datetime.datetime(2021, 1, 1, 10, 0), datetime.datetime(2020, 2, 3, 0, 0)]
#   two dates and a word: string ['2021-01-01 10:00', '2020-02-03', 'word']
#   from_list, two dates: string ['2021-01-01 10:00', '2020-02-03']
#   ids 2**63 + 1, 2**63 + 2 and 3: float64 [9.223372036854776e+18, 9.223372036854776e+18, 3.0]
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_DATASETS_CACHE="$folder/cache" HF_DATASETS_DISABLE_PROGRESS_BARS=1
python3 -m venv venv
venv/bin/pip install --quiet datasets==5.2.0 pyarrow==26.0.1
venv/bin/python - <<'PY'
import datetime
import json
import sys
from pathlib import Path

from datasets import Dataset, load_dataset


def read(name: str, values: list) -> tuple[str, list]:
    path = Path(f"{name}.jsonl")
    path.write_text("".join(json.dumps({"column": value}) + "\n" for value in values))
    rows = load_dataset("json", data_files=str(path), split="train")
    return rows.features["column"].dtype, rows["column"][:]


dates = ["2021-01-01 10:00", "2020-02-03"]
plain = Dataset.from_list([{"column": value} for value in dates])
rows = {
    "two dates": read("dates", dates),
    "two dates and a word": read("words", [*dates, "word"]),
    "from_list, two dates": (plain.features["column"].dtype, plain["column"][:]),
    "ids 2**63 + 1, 2**63 + 2 and 3": read("ids", [2**63 + 1, 2**63 + 2, 3]),
}
for name, (dtype, values) in rows.items():
    print(f"{name}: {dtype} {values}")
same = list(rows.values()) == [
    ("timestamp[s]", [datetime.datetime(2021, 1, 1, 10), datetime.datetime(2020, 2, 3)]),
    ("string", [*dates, "word"]),
    ("string", dates),
    ("float64", [float(2**63), float(2**63), 3.0]),
]
sys.exit(None if same else "the behaviour has changed")
PY
