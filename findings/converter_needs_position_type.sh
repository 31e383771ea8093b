#!/usr/bin/env bash
# CTranslate2 4.8.5, transformers 5.23.0, torch 2.13.0, Python 3.11.
#
# CTranslate2's converter cannot read a BERT folder that transformers 5 has written: it asks the configuration for
# position_embedding_type, which BERT has no more since transformers 5 and which is therefore not in config.json. The
# same folder converts once the line that transformers 4 wrote is put into config.json by hand.
#
# Output seen:
#   as transformers 5 wrote it: AttributeError
#   with position_embedding_type: converted
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 transformers==5.23.0 ctranslate2==4.8.5
HF_HUB_OFFLINE=1 venv/bin/python -W ignore - <<'PY'
import json
import sys
from pathlib import Path

import ctranslate2
from transformers import BertConfig, BertModel, BertTokenizerFast

folder = Path("bert")
folder.mkdir()
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
(folder / "vocab.txt").write_text("\n".join(words))
sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)


def outcome(target: str) -> str:
    try:
        ctranslate2.converters.TransformersConverter(str(folder)).convert(target)
    except Exception as error:
        return type(error).__name__
    return "converted"


seen = {"as transformers 5 wrote it": outcome("first")}
config = json.loads((folder / "config.json").read_text())
(folder / "config.json").write_text(json.dumps({**config, "position_embedding_type": "absolute"}))
seen["with position_embedding_type"] = outcome("second")
for name, found in seen.items():
    print(f"{name}: {found}")
sys.exit(list(seen.values()) != ["AttributeError", "converted"])
PY
