#!/usr/bin/env bash
# sentence-transformers 6.2.0, transformers 5.23.0, accelerate 1.15.0, datasets 5.2.0, torch 2.13.0 (CPU), Python 3.11.
#
# model.fit computes the length of its learning rate schedule from rows // batch size, but takes one step for the last,
# smaller batch of an epoch as well. The steps beyond the schedule are taken at a learning rate of zero: with 20 rows,
# batches of 8 and 2 epochs, the last 2 of 6. With fewer rows than a batch holds, the schedule has no steps, and the
# whole training leaves every weight as it was. No warning is given.
#
# Output seen (learning rates in units of 1e-5):
#   20 rows: 2.0 1.5 1.0 0.5 0.0 0.0
#   4 rows: 0.0 0.0
#   4 rows: weights that changed: 0
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

import torch
from sentence_transformers import InputExample, SentenceTransformer, losses
from torch.utils.data import DataLoader
from transformers import BertConfig, BertModel, BertTokenizer

words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog", "sea", "sky"]
sizes = {"vocab_size": 9, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
torch.manual_seed(0)
BertModel(BertConfig(max_position_embeddings=16, **sizes)).save_pretrained("model")
BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained("model")
rates: list[float] = []


class AdamW(torch.optim.AdamW):
    def step(self, *arguments, **options):
        rates.append(self.param_groups[0]["lr"])
        return super().step(*arguments, **options)


def fit(rows: int) -> tuple[list[float], int]:
    model = SentenceTransformer("model", device="cpu")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    examples = [InputExample(texts=[words[5 + i % 4], words[5 + i // 4 % 4]], label=i % 2) for i in range(rows)]
    rates.clear()
    objective = (DataLoader(examples, batch_size=8), losses.CosineSimilarityLoss(model))
    options = {"optimizer_params": {"lr": 2e-5}, "optimizer_class": AdamW, "show_progress_bar": False}
    model.fit([objective], epochs=2, warmup_steps=0, **options)
    changed = sum(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return [round(rate * 1e5, 2) for rate in rates], changed


many, changed = fit(20)
few, unchanged = fit(4)
print("20 rows:", *many)
print("4 rows:", *few)
print(f"4 rows: weights that changed: {unchanged}")
same = many == [2.0, 1.5, 1.0, 0.5, 0.0, 0.0] and few == [0.0, 0.0] and changed > 0 and unchanged == 0
sys.exit(None if same else "the behaviour has changed")
PY
