#!/usr/bin/env bash
# sentence-transformers 6.2.0, transformers 5.23.0, accelerate 1.15.0, datasets 5.2.0, torch 2.13.0 (CPU), Python 3.11.
#
# After training with bf16=True, encode() of the model in memory goes on computing in bfloat16, although its weights and
# its embeddings are float32 and it says nothing: the trainer's wrapper around the model's forward, with autocast in it,
# is left in place. The same model saved and loaded gives other embeddings, and so does every evaluation made before
# saving. After training in float32 the two are equal to the bit.
#
# Output seen (largest difference of embeddings: model in memory against the same model loaded again):
#   float32: difference 0.000; weights and embeddings: float32
#   bf16: difference 0.030; weights and embeddings: float32
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 transformers==5.23.0 sentence-transformers==6.2.0 accelerate==1.15.0 \
    datasets==5.2.0
venv/bin/python -W ignore - <<'PY'
import sys

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.losses import CosineSimilarityLoss
from transformers import BertConfig, BertModel, BertTokenizer

words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog", "sea", "sky"]
sizes = {"vocab_size": 9, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 99}
torch.manual_seed(0)
BertModel(BertConfig(max_position_embeddings=16, initializer_range=0.2, **sizes)).save_pretrained("model")
BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained("model")
data = Dataset.from_dict({"one": words[5:8], "two": words[6:9], "label": [0.0, 1.0, 0.5]})


def difference(name: str, bf16: bool) -> tuple[float, set[str]]:
    model = SentenceTransformer("model", device="cpu")
    settings = {"use_cpu": True, "max_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    arguments = SentenceTransformerTrainingArguments(output_dir=f"run-{name}", bf16=bf16, **settings)
    SentenceTransformerTrainer(model, arguments, train_dataset=data, loss=CosineSimilarityLoss(model)).train()
    model.save_pretrained(name)
    loaded = SentenceTransformer(name, device="cpu")
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), loaded.parameters(), strict=True))
    first, second = model.encode(words[5:]), loaded.encode(words[5:])
    kinds = {str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()} | {str(first.dtype)}
    return float(np.abs(first - second).max()), kinds


same = True
for name, bf16 in (("float32", False), ("bf16", True)):
    largest, kinds = difference(name, bf16)
    print(f"{name}: difference {largest:.3f}; weights and embeddings: {', '.join(kinds)}")
    same &= (largest > 1e-3 if bf16 else largest == 0) and kinds == {"float32"}
sys.exit(None if same else "the behaviour has changed")
PY
