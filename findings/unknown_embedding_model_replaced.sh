#!/usr/bin/env bash
# KeyBERT 0.9.0 and BERTopic 0.17.4, with sentence-transformers 6.2.0, transformers 5.23.0, torch 2.13.0, Python 3.11.
#
# Both choose how to use an embedding model by words in the text of its type, such as "sentence_transformers" or "flair".
# An object whose type has none of them is dropped without a message, even if it has a working `encode`, and a model
# that nobody asked for is looked for on the Hub. A subclass of their own BaseEmbedder, with `embed`, is used.
#
# Output seen, offline (the name of the model is the one that sentence-transformers was asked for):
#   KeyBERT: looked for paraphrase-multilingual-MiniLM-L12-v2; calls of encode: 0
#   BERTopic: looked for sentence-transformers/all-MiniLM-L6-v2; calls of encode: 0
#   KeyBERT with a BaseEmbedder: no error; calls of encode: 2
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 transformers==5.23.0 sentence-transformers==6.2.0 keybert==0.9.0 \
    bertopic==0.17.4
HF_HUB_OFFLINE=1 venv/bin/python -W ignore - <<'PY'
import sys

import numpy as np
from bertopic import BERTopic
from keybert import KeyBERT
from keybert.backend import BaseEmbedder
from sentence_transformers import SentenceTransformer

asked: list[str] = []
calls: list[int] = []


class Encoder:
    def encode(self, texts: list[str], **_: object) -> np.ndarray:
        calls.append(len(texts))
        return np.random.default_rng(0).normal(size=(len(texts), 8)).astype("float32")


class Wrapped(BaseEmbedder):
    def embed(self, documents: list[str], verbose: bool = False) -> np.ndarray:
        return Encoder().encode(documents)


construct = SentenceTransformer.__init__


def record(self: SentenceTransformer, name: str, *arguments: object, **options: object) -> None:
    asked.append(name)
    construct(self, name, *arguments, **options)


SentenceTransformer.__init__ = record
texts = [f"a text with the number {number} and words" for number in range(40)]


def outcome(run) -> tuple[str, int]:
    asked.clear()
    calls.clear()
    try:
        run()
    except OSError:
        return f"looked for {asked[0]}", len(calls)
    return "no error", len(calls)


results = {
    "KeyBERT": outcome(lambda: KeyBERT(model=Encoder()).extract_keywords(texts[0])),
    "BERTopic": outcome(lambda: BERTopic(embedding_model=Encoder()).fit(texts)),
}
results["KeyBERT with a BaseEmbedder"] = outcome(lambda: KeyBERT(model=Wrapped()).extract_keywords(texts[0]))
for name, (what, number) in results.items():
    print(f"{name}: {what}; calls of encode: {number}")
first, second, third = results.values()
same = first == ("looked for paraphrase-multilingual-MiniLM-L12-v2", 0)
same &= second[0].startswith("looked for ") and second[1] == 0 and third[0] == "no error" and third[1] > 0
sys.exit(None if same else "the behaviour has changed")
PY
