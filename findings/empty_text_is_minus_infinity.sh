#!/usr/bin/env bash
# sentence-transformers 6.2.0, transformers 5.23.0, tokenizers 0.23.3, torch 2.13.0 (CPU), Python 3.11.
#
# With a tokenizer that adds no special tokens, an empty text or one of white space has no tokens. Beside other texts in
# a batch it is encoded without an error or a warning: max pooling gives minus infinity in every dimension, and its
# similarity to anything, itself included, is NaN; with Normalize the embedding itself is NaN. Mean pooling gives zeros,
# and a similarity of zero.
#
# Output seen (first value of the embedding of "", and its similarity to itself and to "cat"):
#   max: -inf, similarities nan and nan
#   max and Normalize: nan, similarities nan and nan
#   mean: 0.0, similarities 0.0 and 0.0
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 transformers==5.23.0 tokenizers==0.23.3 sentence-transformers==6.2.0
venv/bin/python -W ignore - <<'PY'
import json
import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel

torch.manual_seed(0)
sizes = {"vocab_size": 4, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
BertModel(BertConfig(max_position_embeddings=16, **sizes)).save_pretrained("model")
words = ["[PAD]", "[UNK]", "cat", "dog"]
tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.save("model/tokenizer.json")
config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
Path("model/tokenizer_config.json").write_text(json.dumps(config))


def row(*modules: torch.nn.Module) -> list[float]:
    model = SentenceTransformer(modules=[Transformer("model"), *modules], device="cpu")
    embeddings = model.encode(["", "cat"])
    return [float(embeddings[0, 0]), *model.similarity(embeddings, embeddings)[0].tolist()]


rows = {
    "max": row(Pooling(8, pooling_mode="max")),
    "max and Normalize": row(Pooling(8, pooling_mode="max"), Normalize()),
    "mean": row(Pooling(8, pooling_mode="mean")),
}
for name, (value, itself, other) in rows.items():
    print(f"{name}: {value}, similarities {itself} and {other}")
seen = [str(values) for values in rows.values()]
same = seen == ["[-inf, nan, nan]", "[nan, nan, nan]", "[0.0, 0.0, 0.0]"]
sys.exit(None if same else "the behaviour has changed")
PY
