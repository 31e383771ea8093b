#!/usr/bin/env bash
# transformers 5.23.0, safetensors 0.8.0, torch 2.13.0 (CPU), Python 3.11, Linux.
#
# The weights of a model loaded on a CPU remain views of model.safetensors: writing other bytes of the same size into
# that file changes what the model in memory computes. The mapping is private, so changes of the model never reach the
# file. Weights that a program has written to are its own from then on, page by page.
#
# Output seen:
#   before: largest output 2.2884
#   file filled with zeros: largest output 0.0000
#   parameters that follow the file: 23 of 23
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 transformers==5.23.0 safetensors==0.8.0
HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 venv/bin/python - <<'PY'
import struct
import sys
from pathlib import Path

import torch
from transformers import AutoModel, BertConfig, BertModel

torch.manual_seed(0)
sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
BertModel(BertConfig(max_position_embeddings=16, **sizes)).save_pretrained("model")
model = AutoModel.from_pretrained("model").eval()


@torch.no_grad()
def largest_output() -> float:
    return model(torch.tensor([[1, 2, 3]])).last_hidden_state.abs().max().item()


before = largest_output()
path = Path("model/model.safetensors")
size = path.stat().st_size
with path.open("r+b") as file:  # in place; the size stays the same
    start = 8 + struct.unpack("<Q", file.read(8))[0]
    file.seek(start)
    file.write(bytes(size - start))
after = largest_output()
parameters = list(model.parameters())
following = sum(not parameter.any() for parameter in parameters)
print(f"before: largest output {before:.4f}")
print(f"file filled with zeros: largest output {after:.4f}")
print(f"parameters that follow the file: {following} of {len(parameters)}")
same = before > 1 and after == 0 and following == len(parameters)
sys.exit(None if same else "the behaviour has changed")
PY
