#!/usr/bin/env bash
# tokenizers 0.23.3, transformers 5.23.0, Python 3.11. No torch needed.
#
# A limit below the number of special tokens switches truncation off: a text of ten words keeps all of its 12 tokens at
# a limit of 1, and just [CLS] and [SEP] at a limit of 2. A pair, with three special tokens, keeps all of its 23 at a
# limit of 2. No error and no warning, in the tokenizers library and through transformers with truncation=True
# (sentence-transformers with max_seq_length=1 passes the limit on, with the same result).
#
# Output seen (tokens at limits of 0, 1, 2, 3 and 4):
#   tokenizers, a text of 12: 12 12 2 3 4
#   transformers, a text of 12: 12 12 2 3 4
#   tokenizers, a pair of 23: 23 23 23 3 4
#   transformers, a pair of 23: 23 23 23 3 4
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.23.0 tokenizers==0.23.3
venv/bin/python - <<'PY'
import sys

from transformers import BertTokenizer

words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two"]
tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words)})
inner = tokenizer.backend_tokenizer


def truncated(texts: list[str], limit: int) -> int:
    inner.enable_truncation(limit)
    return len(inner.encode(*texts).ids)


rows = {}
for name, texts in (("a text of 12", ["one " * 10]), ("a pair of 23", ["one " * 10, "two " * 10])):
    rows[f"tokenizers, {name}"] = [truncated(texts, limit) for limit in range(5)]
    rows[f"transformers, {name}"] = [
        len(tokenizer(*texts, truncation=True, max_length=limit)["input_ids"]) for limit in range(5)
    ]
for name in rows:
    print(f"{name}:", *rows[name])
same = all(row == ([12, 12, 2, 3, 4] if "text" in name else [23, 23, 23, 3, 4]) for name, row in rows.items())
sys.exit(None if same else "the behaviour has changed")
PY
