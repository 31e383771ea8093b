#!/usr/bin/env bash
# sentence-transformers 5.1.2 (transformers 4.57.6) and 6.2.0 (transformers 5.23.0), torch 2.13.0, Python 3.11.
#
# 6.2.0 gives AdaptiveLayerLoss the option layer_weighting and documents that "linear" is what the loss did before. It is
# not: 5.1.2 leaves the embeddings of words out and gives the first layer the weight 1, the second 1/2; with "linear"
# 6.2.0 gives the embeddings of words the weight 1, the first layer 1/2, the second 1/3. The mean, too, is over one layer
# more. The cards of both print the same parameters but for that name.
#
# Output seen:
#   5.1.2 is the first layers with 1, 1/2: True
#   5.1.2 is words and the first layers with 1, 1/2, 1/3: False
#   6.2.0 is the first layers with 1, 1/2: False
#   6.2.0 is words and the first layers with 1, 1/2, 1/3: True
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv old
old/bin/pip install --quiet sentence-transformers==5.1.2 transformers==4.57.6 torch==2.13.0
python3 -m venv new
new/bin/pip install --quiet sentence-transformers==6.2.0 transformers==5.23.0 torch==2.13.0

cat > see.py <<'PY'
import sys

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers import __version__ as version
from sentence_transformers.losses import AdaptiveLayerLoss, CosineSimilarityLoss
from sentence_transformers.models import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizer

words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "sits", "runs"]
with open("vocab.txt", "w", encoding="utf-8") as file:
    file.write("\n".join(words))
BertTokenizer("vocab.txt").save_pretrained("bert")
torch.manual_seed(0)
sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained("bert")
model = SentenceTransformer(modules=[Transformer("bert"), Pooling(16)], device="cpu").eval()

columns = [["a cat", "a dog runs"], ["a dog", "a cat sits"]]
labels = torch.tensor([0.9, 0.1])
features = [dict(model.tokenize(texts)) for texts in columns]
options = {} if version.startswith("5") else {"layer_weighting": "linear"}
loss = AdaptiveLayerLoss(model, CosineSimilarityLoss(model), n_layers_per_step=-1, kl_temperature=0, **options)
with torch.no_grad():
    value = loss([dict(part) for part in features], labels)
    layers = [
        model[0].auto_model(**{name: part[name] for name in part}, output_hidden_states=True).hidden_states
        for part in features
    ]
    masks = [part["attention_mask"][..., None] for part in features]
    of_layer = []
    for pair in zip(*layers):
        means = [(layer * mask).sum(1) / mask.sum(1) for layer, mask in zip(pair, masks)]
        of_layer.append(((torch.cosine_similarity(*means) - labels) ** 2).mean())

last = of_layer[-1]
without_words = last + (of_layer[1] + of_layer[2] / 2) / 2
with_words = last + (of_layer[0] + of_layer[1] / 2 + of_layer[2] / 3) / 3
seen = [abs(float(value - expected)) < 1e-6 for expected in (without_words, with_words)]
print(f"{version} is the first layers with 1, 1/2: {seen[0]}")
print(f"{version} is words and the first layers with 1, 1/2, 1/3: {seen[1]}")
sys.exit(seen != [version.startswith("5"), version.startswith("6")])
PY
old/bin/python -W ignore see.py 2> log || { cat log; exit 1; }
new/bin/python -W ignore see.py 2> log || { cat log; exit 1; }
