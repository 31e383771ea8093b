#!/usr/bin/env bash
# sentence-transformers 6.2.0, transformers 5.23.0, safetensors 0.8.0, torch 2.13.0 (CPU), Python 3.11.
#
# Loading and saving a model without touching it does not give back its weights file: embeddings.position_ids, which
# files of older versions hold (that of all-MiniLM-L6-v2 among them), is not written again. Checksums and sizes of the
# two files differ, although every weight and every embedding is the same to the bit. A second round trip changes
# nothing more.
#
# Output seen:
#   dropped: embeddings.position_ids
#   other tensors equal: 23 of 23
#   first round trip gives the same file: False; second: True
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 transformers==5.23.0 safetensors==0.8.0 sentence-transformers==6.2.0
venv/bin/python -W ignore - <<'PY'
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel, BertTokenizer

words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog"]
sizes = {"vocab_size": 7, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
BertModel(BertConfig(max_position_embeddings=16, **sizes)).save_pretrained("first")
BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained("first")
tensors = load_file("first/model.safetensors")
tensors = {name: tensor.clone() for name, tensor in tensors.items()}
tensors["embeddings.position_ids"] = torch.arange(16)[None]
save_file(tensors, "first/model.safetensors", metadata={"format": "pt"})
for source, target in (("first", "second"), ("second", "third")):
    SentenceTransformer(source, device="cpu").save_pretrained(target)
first, second, third = (Path(name, "model.safetensors").read_bytes() for name in ("first", "second", "third"))
saved = load_file("second/model.safetensors")
dropped = sorted(tensors.keys() - saved.keys())
equal = sum(torch.equal(tensor, tensors[name]) for name, tensor in saved.items())
print("dropped:", *dropped)
print(f"other tensors equal: {equal} of {len(saved)}")
print(f"first round trip gives the same file: {first == second}; second: {second == third}")
same = dropped == ["embeddings.position_ids"] and equal == len(saved) and first != second and second == third
sys.exit(None if same else "the behaviour has changed")
PY
