#!/usr/bin/env bash
# mteb 2.26.24, sentence-transformers 6.2.0, torch 2.13.0, Python 3.11.
#
# mteb.evaluate takes a SentenceTransformer and keeps its scores in a cache, by default in the user's home, by the name
# and revision of the model on the Hub. A model that was loaded from a folder, or made from modules, has neither: all of
# them are "no_model_name/available" at "no_revision_available". So the second local model that is evaluated on a task
# gets the scores of the first, and a model that was trained further those it had before. Nothing is computed and
# nothing is said, but for a line at the level of INFO. cache=None, or overwrite_strategy="always", evaluates it.
#
# Output seen (Spearman's correlation of two models of random embeddings on the same pairs):
#   without a cache: first 0.4992, second 0.6316
#   with a cache:    first 0.4992, second 0.4992
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet mteb==2.26.24 sentence-transformers==6.2.0 torch==2.13.0
venv/bin/python -W ignore - <<'PY'
import logging
import sys
from pathlib import Path

import mteb
import numpy as np
from datasets import Dataset
from mteb.abstasks import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.cache import ResultCache
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

logging.disable(logging.WARNING)  # that sizes of the little models are unknown
WORDS = "a cat and the dog ran on red mats".split()


class Pairs(AbsTaskSTS):
    metadata = TaskMetadata(
        name="Pairs",
        type="STS",
        main_score="cosine_spearman",
        description="Random pairs.",
        dataset={"path": "local/pairs", "revision": "1"},
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
    )

    def load_data(self, **options: object) -> None:
        draw = np.random.default_rng(0)
        first, second = ([" ".join(draw.choice(WORDS, 4)) for _ in range(20)] for _ in range(2))
        columns = {"sentence1": first, "sentence2": second, "score": (5 * draw.random(20)).tolist()}
        self.dataset, self.data_loaded = {"test": Dataset.from_dict(columns)}, True


def local_model(name: str, seed: int) -> SentenceTransformer:
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="a"))
    tokenizer.pre_tokenizer = Whitespace()
    weights = np.random.default_rng(seed).normal(size=(len(WORDS), 8)).astype(np.float32)
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu").save(name)
    return SentenceTransformer(name, device="cpu")


def scores(cache: ResultCache | None) -> list[float]:
    results = (mteb.evaluate(model, Pairs(), cache=cache, show_progress_bar=False) for model in models)
    return [round(float(result.task_results[0].get_score()), 4) for result in results]


models = [local_model("first", 1), local_model("second", 2)]
without, cached = scores(None), scores(ResultCache(Path("cache")))
print("without a cache: first {}, second {}".format(*without))
print("with a cache:    first {}, second {}".format(*cached))
sys.exit(None if without[0] != without[1] and cached == [without[0]] * 2 else "the behaviour has changed")
PY
