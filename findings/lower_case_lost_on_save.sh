#!/usr/bin/env bash
# sentence-transformers 6.2.0, transformers 5.23.0, tokenizers 0.23.3, torch 2.13.0, Python 3.11.
#
# Transformer(..., do_lower_case=True) puts texts in lower case while the model is in memory, and save_pretrained writes
# this into tokenizer.json as a Lowercase step. Nothing else keeps it, and BertTokenizer of transformers 5 builds its
# normalizer from tokenizer_config.json, which says do_lower_case=false. The saved model therefore loads without a
# warning as a cased one: other tokens, other embeddings.
#
# Output seen:
#   in memory: [CLS] hello world [SEP]
#   loaded again: [CLS] Hello World [SEP]
#   first step of the saved normalizer: Lowercase
#   cosine of the two embeddings of "Hello World": 0.67
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 transformers==5.23.0 tokenizers==0.23.3 sentence-transformers==6.2.0
HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error venv/bin/python -W ignore - <<'PY'
import json
import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizer

torch.manual_seed(0)
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world", "Hello", "World"]
sizes = {"vocab_size": 9, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
BertModel(BertConfig(max_position_embeddings=16, initializer_range=0.5, **sizes)).save_pretrained("cased")
vocabulary = {word: index for index, word in enumerate(words)}
BertTokenizer(vocab=vocabulary, do_lower_case=False).save_pretrained("cased")

model = SentenceTransformer(modules=[Transformer("cased", do_lower_case=True), Pooling(16)], device="cpu")
model.save_pretrained("saved")
loaded = SentenceTransformer("saved", device="cpu")


def tokens(model: SentenceTransformer) -> str:
    ids = model.preprocess(["Hello World"])["input_ids"][0]
    return " ".join(words[index] for index in ids)


first, second = tokens(model), tokens(loaded)
step = json.loads(Path("saved/tokenizer.json").read_text())["normalizer"]["normalizers"][0]["type"]
cosine = torch.cosine_similarity(*(torch.tensor(each.encode("Hello World")) for each in (model, loaded)), dim=0).item()
print(f"in memory: {first}")
print(f"loaded again: {second}")
print(f"first step of the saved normalizer: {step}")
print(f'cosine of the two embeddings of "Hello World": {cosine:.2f}')
same = (first, second, step) == ("[CLS] hello world [SEP]", "[CLS] Hello World [SEP]", "Lowercase") and cosine < 0.99
sys.exit(None if same else "the behaviour has changed")
PY
