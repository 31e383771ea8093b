#!/usr/bin/env bash
# chromadb 1.5.9, numpy 2.4.6, Python 3.11.
#
# A collection of Chroma keeps the name and the configuration of its embedding function, such as the name of the model
# and whether embeddings are normalized. get_collection(embedding_function=...) refuses a function of another name, but
# compares no configuration: one of the same kind with another model is taken, and queries and new documents are
# embedded by that model, while the rest of the collection stays as it was. If the dimensions are equal nothing is said.
# Without the argument the function is made again as it was kept. (One that was kept as "legacy", because it has no
# configuration, is replaced by Chroma's default model.)
#
# Output seen (the nearest of "short" and "long" to a long text):
#   the same function: long
#   another of its kind: short
#   another kind: An embedding function already exists in the collection configuration, and a new one is provided.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet chromadb==1.5.9 numpy==2.4.6
ANONYMIZED_TELEMETRY=False venv/bin/python -W ignore - <<'PY'
import sys

import chromadb
import numpy as np
from chromadb import EmbeddingFunction


class Length(EmbeddingFunction):
    """Embeds the length of a text, with a sign that stands for a model."""

    def __init__(self, sign: int) -> None:
        self.sign = sign

    def __call__(self, input: list[str]) -> list[np.ndarray]:
        return [np.float32([self.sign * len(text), 1]) for text in input]

    @staticmethod
    def name() -> str:
        return "length"

    def get_config(self) -> dict[str, int]:
        return {"sign": self.sign}

    @staticmethod
    def build_from_config(config: dict[str, int]) -> "Length":
        return Length(**config)


class Other(Length):
    @staticmethod
    def name() -> str:
        return "other"


client = chromadb.EphemeralClient()
collection = client.create_collection("texts", embedding_function=Length(1))
collection.add(ids=["short", "long"], documents=["a" * 2, "a" * 50])
seen = []
for title, function in {
    "the same function": Length(1),
    "another of its kind": Length(-1),
    "another kind": Other(1),
}.items():
    try:
        opened = client.get_collection("texts", embedding_function=function)
        seen.append(opened.query(query_texts=["a" * 40], n_results=1)["ids"][0][0])
    except ValueError as error:
        seen.append(str(error).split(". ")[0] + ".")
    print(f"{title}: {seen[-1]}")
expected = seen[:2] == ["long", "short"] and seen[2].startswith("An embedding function already exists")
sys.exit(None if expected else "the behaviour has changed")
PY
