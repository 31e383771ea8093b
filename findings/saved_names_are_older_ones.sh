#!/usr/bin/env bash
# transformers 5.23.0, torch 2.13.0, safetensors 0.8, Python 3.11.
#
# transformers 5 has encoders for nomic_bert and gte whose modules have names of their own (layers.0.self_attn.q_proj).
# save_pretrained does not write these names: it writes those of the code that once came with such checkpoints
# (encoder.layers.0.attn.Wqkv, emb_ln, mlp.fc11), with queries, keys and values joined in one tensor, also for a model
# that was never loaded from such a checkpoint. config.json, beside it, has the new keys alone. Whoever reads
# model.safetensors by the names of the modules finds almost none.
#
# Output seen:
#   nomic_bert: 15 tensors in memory, 13 in the file, 2 names in both: encoder.layers.0.attn.Wqkv.weight
#   gte: 20 tensors in memory, 15 in the file, 4 names in both: encoder.layer.0.attention.qkv_proj.weight
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 transformers==5.23.0
HF_HUB_OFFLINE=1 venv/bin/python -W ignore - <<'PY'
import sys

from safetensors import safe_open
from transformers import AutoConfig, AutoModel

sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
same = []
for kind, joined in (("nomic_bert", "attn.Wqkv.weight"), ("gte", "qkv_proj.weight")):
    model = AutoModel.from_config(AutoConfig.for_model(kind, vocab_size=20, pad_token_id=0, **sizes))
    model.save_pretrained(kind)
    with safe_open(f"{kind}/model.safetensors", "pt") as file:
        saved = set(file.keys())
    memory = set(model.state_dict())
    one = next((name for name in saved if name.endswith(joined)), "")
    print(
        f"{kind}: {len(memory)} tensors in memory, {len(saved)} in the file, {len(memory & saved)} names in "
        f"both: {one}"
    )
    same.append(bool(one) and len(memory & saved) < len(memory) / 2)
sys.exit(same != [True, True])
PY
