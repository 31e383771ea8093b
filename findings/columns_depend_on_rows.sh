#!/usr/bin/env bash
# datasets 5.2.0 with pandas 2.2.3 and 3.1.1, pyarrow 26.0.1, Python 3.11.
#
# Dataset.from_pandas adds the index of a filtered frame as a column, __index_level_0__, or does not, depending on which
# rows are left and on the version of pandas. With pandas 3 a filter whose rows happen to lie at equal distances keeps a
# range as index, which is not added; with pandas 2 it never does. The same line of code gives datasets of two or of
# three columns, depending on the data, and a trainer that takes every column as an input gets one more.
# preserve_index=False is the remedy.
#
# Output seen (columns of a frame with "text" and "score" after a filter that leaves rows ...):
#   pandas 2.2.3: 2, 3: 3 columns; 0, 2, 4: 3 columns; 0, 1, 3: 3 columns; slice [1:3]: 2 columns
#   pandas 3.1.1: 2, 3: 2 columns; 0, 2, 4: 2 columns; 0, 1, 3: 3 columns; slice [1:3]: 2 columns
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
for version in 2.2.3 3.1.1; do
    python3 -m venv venv
    venv/bin/pip install --quiet datasets==5.2.0 pyarrow==26.0.1 "pandas==$version"
    HF_HUB_OFFLINE=1 venv/bin/python - <<'PY'
import sys

import pandas
from datasets import Dataset

frame = pandas.DataFrame({"text": list("abcde"), "score": range(5)})
frames = {", ".join(map(str, rows)): frame[frame.score.isin(rows)] for rows in ([2, 3], [0, 2, 4], [0, 1, 3])}
frames["slice [1:3]"] = frame[1:3]
columns = {name: Dataset.from_pandas(each).column_names for name, each in frames.items()}
numbers = [len(names) for names in columns.values()]
print(f"pandas {pandas.__version__}:", "; ".join(f"{name}: {len(names)} columns" for name, names in columns.items()))
same = numbers == ([3, 3, 3, 2] if pandas.__version__ == "2.2.3" else [2, 2, 3, 2])
same &= columns["0, 1, 3"] == ["text", "score", "__index_level_0__"]
same &= all(len(Dataset.from_pandas(each, preserve_index=False).column_names) == 2 for each in frames.values())
sys.exit(None if same else "the behaviour has changed")
PY
    rm -r venv
done
