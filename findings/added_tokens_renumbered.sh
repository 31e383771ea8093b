#!/usr/bin/env bash
# tokenizers 0.23.3, transformers 5.23.0, Python 3.11. No torch needed.
#
# Every entry of "added_tokens" in tokenizer.json states the token's id, but the id is not read: tokens behind the
# vocabulary are numbered from its end. Where a file leaves a gap, as it does for an embedding table with spare rows,
# each of these tokens gets the row of another one. The tokenizers library and AutoTokenizer agree on this; no error,
# and no warning that Python shows. The file that is saved again states the other ids.
#
# Output seen (ids of "covid19 <e1>" in a vocabulary of 7 words; the file states 14 and 20):
#   tokenizers: 7 8
#   transformers, BertTokenizer: 7 8
#   transformers, TokenizersBackend: 7 8
#   saved again: 7 8
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.23.0 tokenizers==0.23.3
venv/bin/python - <<'PY'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two"]
tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.add_tokens(["covid19"])
tokenizer.add_special_tokens(["<e1>"])
content = json.loads(tokenizer.to_str())
for token, index in zip(content["added_tokens"], (14, 20), strict=True):
    token["id"] = index
text = "covid19 <e1>"
results = {}
for name, config in (
    ("BertTokenizer", {"tokenizer_class": "BertTokenizer"}),
    ("TokenizersBackend", {"tokenizer_class": "PreTrainedTokenizerFast"}),
):
    folder = Path(name)
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    read = Tokenizer.from_file(str(folder / "tokenizer.json"))
    results["tokenizers"] = read.encode(text).ids
    loaded = AutoTokenizer.from_pretrained(folder)
    assert type(loaded).__name__ == name
    results[f"transformers, {name}"] = loaded(text, add_special_tokens=False)["input_ids"]
results["saved again"] = [token["id"] for token in json.loads(read.to_str())["added_tokens"]]
for name, ids in results.items():
    print(f"{name}:", *ids)
same = all(ids == [7, 8] for ids in results.values())
sys.exit(None if same else "the behaviour has changed")
PY
