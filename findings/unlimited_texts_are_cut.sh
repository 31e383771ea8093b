#!/usr/bin/env bash
# sentence-transformers 6.2.0, model2vec 0.10.0, torch 2.13.0, transformers 5.23.0, Python 3.11.
#
# A static model of sentence-transformers says that max_seq_length is infinite. The tokenizer that it reads keeps the
# truncation which stands in tokenizer.json all the same, and model2vec writes one (512 tokens by default) when it saves
# a model. So texts are cut without a word, where the library's own number says that nothing is.
#
# Output seen:
#   max_seq_length: inf
#   600 words: the embedding is that of the first 512
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 transformers==5.23.0 sentence-transformers==6.2.0 model2vec==0.10.0
HF_HUB_OFFLINE=1 venv/bin/python -W ignore - <<'PY'
import math
import sys

import numpy as np
from model2vec import StaticModel
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, pre_tokenizers

words = ["[UNK]", *(f"w{number}" for number in range(1000))]
tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
vectors = np.random.default_rng(0).normal(size=(len(words), 8)).astype(np.float32)
StaticModel(vectors, tokenizer).save_pretrained("static")
model = SentenceTransformer("static", device="cpu")
print(f"max_seq_length: {model.max_seq_length}")
texts = [" ".join(f"w{number}" for number in range(count)) for count in (600, 512)]
long, cut = model.encode(texts)
print(f"600 words: the embedding is {'that' if np.allclose(long, cut) else 'not that'} of the first 512")
sys.exit(not (math.isinf(model.max_seq_length) and np.allclose(long, cut)))
PY
