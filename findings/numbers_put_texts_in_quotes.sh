#!/usr/bin/env bash
# datasets 3.6.0 and 5.2.0, pyarrow 26.0.1, Python 3.11.
#
# Dataset.from_generator and map write rows in batches (of 1000; of 3 here). If a column of texts has a number
# in a later batch, 5.2.0 stores all texts of that batch as JSON: with quotation marks around them, in a column that is
# still of type string. Texts of other batches are unchanged, so that the same text is found in two forms. If the number
# is in the first batch, the column gets the type Json instead, and all rows keep their values. 3.6.0 raised an error.
#
# Output seen (six rows "a b", one of them replaced by the number 7):
#   3.6.0: errors: True, True
#   5.2.0: number in the last row: a b, a b, a b, "a b", "a b", 7 (Value('string'))
#   5.2.0: number in the third row: a b, a b, 7, a b, a b, a b (Json(decode=True))
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_DATASETS_CACHE="$folder/cache" HF_DATASETS_DISABLE_PROGRESS_BARS=1
for version in 3.6.0 5.2.0; do
    python3 -m venv venv
    venv/bin/pip install --quiet pyarrow==26.0.1 "datasets==$version"
    venv/bin/python - <<'PY'
import sys

from datasets import Dataset, Value, __version__


def stored(number_at: int) -> tuple[list, object] | None:
    rows = Dataset.from_dict({"row": list(range(6))})
    try:
        mapped = rows.map(lambda row: {"text": 7 if row["row"] == number_at else "a b"}, writer_batch_size=3)
    except Exception:
        return None
    return mapped["text"][:], mapped.features["text"]


last, third = stored(5), stored(2)
if __version__ == "3.6.0":
    print(f"{__version__}: errors: {last is None}, {third is None}")
    same = last is None and third is None
else:
    for name, result in (("last", last), ("third", third)):
        print(f"{__version__}: number in the {name} row: {', '.join(map(str, result[0]))} ({result[1]})")
    same = last == (["a b", "a b", "a b", '"a b"', '"a b"', "7"], Value("string"))
    same &= third[0] == ["a b", "a b", 7, "a b", "a b", "a b"] and type(third[1]).__name__ == "Json"
sys.exit(None if same else "the behaviour has changed")
PY
    rm -r venv
done
