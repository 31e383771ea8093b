#!/usr/bin/env bash
# sentence-transformers 6.2.0, transformers 5.23.0, accelerate 1.15.0, datasets 5.2.0, torch 2.13.0, Python 3.11.
#
# ContrastiveTensionLoss trains a copy of the model, and DenoisingAutoEncoderLoss a decoder. The Trainer puts the model in
# training mode and nothing else; a model that was loaded is in evaluation mode, and so are its copy and the decoder, to
# the end of training: both are trained without dropout. The papers of both methods train both sides alike.
#
# Output seen:
#   encoder of the model in training mode: True
#   encoder of its copy in training mode: False
#   decoder in training mode: False
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet sentence-transformers==6.2.0 transformers==5.23.0 accelerate==1.15.0 datasets==5.2.0 \
    torch==2.13.0
cat > see.py <<'PY'
import sys

from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
)
from sentence_transformers.models import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizer

words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "sits", "runs"]
with open("vocab.txt", "w", encoding="utf-8") as file:
    file.write("\n".join(words))
BertTokenizer("vocab.txt").save_pretrained("bert")
sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained("bert")
SentenceTransformer(modules=[Transformer("bert"), Pooling(16)], device="cpu").save("model")


def train(kind, watched):
    model = SentenceTransformer("model", device="cpu")
    loss = kind(model)
    modes = {}

    def note(loss, *_):
        for name, encoder in watched(loss).items():
            modes.setdefault(name, encoder.training)  # of the first batch

    loss.register_forward_pre_hook(note)
    SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments("work", max_steps=1, report_to="none", use_cpu=True),
        train_dataset=Dataset.from_dict({"one": ["a cat sits", "a dog"], "other": ["a cat sits", "a dog runs"]}),
        loss=loss,
    ).train()
    return modes


def encoders(loss):
    return {"encoder of the model": loss.model2[0].model, "encoder of its copy": loss.model1[0].model}


modes = train(losses.ContrastiveTensionLoss, encoders)
modes |= train(losses.DenoisingAutoEncoderLoss, lambda loss: {"decoder": loss.decoder})
for name, mode in modes.items():
    print(f"{name} in training mode: {mode}")
sys.exit(modes != {"encoder of the model": True, "encoder of its copy": False, "decoder": False})
PY
venv/bin/python -W ignore see.py > out 2> log || { cat out log; exit 1; }
grep "in training mode" out
