#!/usr/bin/env bash
# sentence-transformers 6.2.0, transformers 5.23.0, torch 2.13.0, Python 3.11.
#
# DenoisingAutoEncoderLoss ties the weights of encoder and decoder by putting the decoder's in place of the encoder's,
# and the decoder is loaded from the folder or the name that the encoder was loaded from. A model that has been trained in
# the meantime, as in a second stage after another loss, silently starts again from the weights of that folder.
#
# Output seen:
#   embeddings changed by training: True
#   embeddings as before training once the loss is made: True
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet sentence-transformers==6.2.0 transformers==5.23.0 torch==2.13.0
cat > see.py <<'PY'
import sys

import torch
from sentence_transformers import SentenceTransformer, losses
from sentence_transformers.models import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizer

words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "sits", "runs"]
with open("vocab.txt", "w", encoding="utf-8") as file:
    file.write("\n".join(words))
BertTokenizer("vocab.txt").save_pretrained("bert")
sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained("bert")
model = SentenceTransformer(modules=[Transformer("bert"), Pooling(16)], device="cpu").eval()


def embedding():
    return model.encode("a cat sits", convert_to_tensor=True)


saved = embedding()
with torch.no_grad():  # as an optimizer does
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
changed = not torch.allclose(embedding(), saved, atol=1e-3)
losses.DenoisingAutoEncoderLoss(model)
back = torch.allclose(embedding(), saved, atol=1e-6)
print("embeddings changed by training:", changed)
print("embeddings as before training once the loss is made:", back)
sys.exit(not (changed and back))
PY
venv/bin/python -W ignore see.py 2> log || { cat log; exit 1; }
