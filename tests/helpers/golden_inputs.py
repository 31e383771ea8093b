"""What the golden vectors were computed from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

MODELS = ("bert", "roberta", "xlm-roberta", "distilbert", "mpnet", "minilm")
TEXTS = [
    "",
    "a",
    "The cat sat on the mat.",
    "why is the sky blue and the sea not red?",
    "naïve café ÀÉÎ",
    "我们爱自然语言处理",
    "😀 emoji, tab\tand\nnewline  ",
    "[SEP] <pad> </s> spelled out",
    "one two three " * 40,
    "http://example.org/path?query=1#part 3.14159",
]
POOLING_MODES = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
PROMPT = "what is: "
LOSSES = {
    "cosine": ("CosineSimilarityLoss", 2),
    "ranking": ("MultipleNegativesRankingLoss", 2),
    "ranking, one hard negative": ("MultipleNegativesRankingLoss", 3),
    "ranking, three hard negatives": ("MultipleNegativesRankingLoss", 5),
}


def columns(count: int) -> list[NDArray[np.float64]]:
    """Embeddings of seven rows."""
    return list(np.random.default_rng(count).normal(size=(count, 7, 16)))


def labels() -> NDArray[np.float64]:
    """Their labels."""
    return np.random.default_rng(0).random(7).round(2)


def with_pooling(model: Path, folder: Path, mode: str) -> Path:
    """A copy of a model with another pooling, that leaves a prompt's tokens out."""
    shutil.copytree(model, folder)
    config = {"word_embedding_dimension": 32, f"pooling_mode_{mode}": True, "include_prompt": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def summary(folder: Path) -> list[float]:
    """Sum and sum of squares of all weights of a saved model, but BERT's pooler, which training does not touch."""
    weights = load_file(folder / "model.safetensors")
    values = np.concatenate([weights[name].ravel() for name in sorted(weights) if not name.startswith("pooler")])
    return [float(values.sum()), float(np.square(values).sum())]
