#!/usr/bin/env bash
# transformers 4.57.6 and 5.23.0, torch 2.13.0 (CPU), Python 3.11.
#
# A BERT with position_embedding_type="relative_key" or "relative_key_query", saved by 4.57.6, loads in 5.23.0 without
# an error, but gives other hidden states: the table of distances is reported as unexpected and dropped, and the table
# of absolute positions, which 4.57.6 saves but never uses for these types, is added instead. The configuration of the
# loaded model still names the relative type.
# Neighbour: 4.57.6 takes "alibi", which BERT never had, and then uses no positions at all: reversing a text only
# reverses its hidden states. 5.23.0 adds absolute positions to the same folder.
#
# Output seen (largest difference of hidden states between the versions; of magnitudes up to 3):
#   absolute: 0.00
#   relative_key: 2.73
#   relative_key_query: 2.30
#   alibi: 2.11, and 4.57.6 does not see the order
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error
python3 -m venv old
old/bin/pip install --quiet torch==2.13.0 transformers==4.57.6
old/bin/python - <<'PY'
import torch
from transformers import BertConfig, BertModel

sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7]])
for kind in ("absolute", "relative_key", "relative_key_query", "alibi"):
    torch.manual_seed(0)
    config = BertConfig(position_embedding_type=kind, max_position_embeddings=16, initializer_range=0.5, **sizes)
    model = BertModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(kind)
    with torch.no_grad():
        states = [model(ids).last_hidden_state, model(ids.flip(1)).last_hidden_state.flip(1)]
    torch.save(states, f"{kind}.pt")
PY
rm -r old
python3 -m venv new
new/bin/pip install --quiet torch==2.13.0 transformers==5.23.0
new/bin/python - <<'PY'
import sys

import torch
from transformers import AutoModel

ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7]])
same = True
for kind in ("absolute", "relative_key", "relative_key_query", "alibi"):
    model = AutoModel.from_pretrained(kind, add_pooling_layer=False).eval()
    states, reverse = torch.load(f"{kind}.pt")
    with torch.no_grad():
        difference = (model(ids).last_hidden_state - states).abs().max().item()
    blind = (states - reverse).abs().max().item() < 1e-5
    print(f"{kind}: {difference:.2f}" + (", and 4.57.6 does not see the order" if blind else ""))
    same &= difference < 1e-5 if kind == "absolute" else difference > 1
    same &= blind == (kind == "alibi") and model.config.position_embedding_type == kind
    same &= not any("distance_embedding" in name for name in model.state_dict())
sys.exit(None if same else "the behaviour has changed")
PY
