"""How fast a static model embeds texts, beside model2vec and the reference, from one folder."""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timing
import workloads
from machine import table

from minisbert.storage.locate import packaged_model

TEXTS, QUICK_TEXTS, DIM = 100_000, 2_000, 256
OURS, MODEL2VEC, REFERENCE = "minisbert", "model2vec", "sentence-transformers"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Embed the texts with each in turn; each also one text at a time."""
    texts = workloads.many(options.data, QUICK_TEXTS if options.quick else TEXTS)
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models, missing = _models(Path(place) / "model")
        many = _timed({name: _run(model, texts) for name, model in models.items()}, options.rounds)
        few = _timed({name: _one_by_one(model, texts[:500]) for name, model in models.items()}, options.rounds)
        expected = np.asarray(models[REFERENCE].encode(texts), np.float32)
        off = float(np.abs(models[OURS].encode(texts) - expected).max())
    sizes = {"texts": len(texts), "single": min(500, len(texts)), "dim": DIM}
    return {**sizes, "many": many, "one": few, "difference": off, "not_available": missing}


def table_of(result: dict[str, Any]) -> str:
    """For people."""
    rows: list[tuple[Any, ...]] = [
        ("texts/s", "many", "one at a time", "minisbert is so many times as fast: many", "one")
    ]
    for name in result["many"]:
        many, one = result["many"][name], result["one"][name]
        speeds = (
            f"{result[count] / way['seconds']['median']:,.0f}" for count, way in (("texts", many), ("single", one))
        )
        rows.append((name, *speeds, *(_ratio(way) for way in (many, one))))
    lines = [f"{name} is not available: {reason}" for name, reason in result["not_available"].items()]
    return "\n".join([table(rows), f"largest difference from the reference: {result['difference']:.1e}", *lines])


def _ratio(way: dict[str, Any]) -> str:
    fast = way.get("slower")
    return f"{fast['median']:.2f} ({fast['low']:.2f} - {fast['high']:.2f})" if fast else ""


def _models(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The same table in each: random rows for the vocabulary of all-MiniLM-L6-v2."""
    import sentence_transformers
    from tokenizers import Tokenizer

    from minisbert import SentenceTransformer
    from minisbert.modules import Normalize, StaticEmbedding

    tokenizer = Tokenizer.from_file(str(packaged_model() / "tokenizer.json"))
    tokenizer.no_truncation()
    weights = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), DIM)).astype(np.float32)
    static = StaticEmbedding(tokenizer, embedding_weights=weights)
    SentenceTransformer(modules=[static, Normalize()], device="cpu").save_pretrained(folder)
    models: dict[str, Any] = {OURS: SentenceTransformer(folder, device="cpu")}
    missing = {}
    try:
        import model2vec

        models[MODEL2VEC] = model2vec.StaticModel(weights, tokenizer, normalize=True, max_length=None)
    except ImportError as error:
        missing[MODEL2VEC] = str(error)
    models[REFERENCE] = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    return models, missing


def _run(model: Any, texts: list[str]) -> Callable[[], object]:
    return lambda: model.encode(texts)


def _one_by_one(model: Any, texts: list[str]) -> Callable[[], object]:
    return lambda: [model.encode([text]) for text in texts]


def _timed(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, Any]:
    for run in runs.values():
        run()  # warms up
    seconds = timing.interleaved(runs, rounds)
    return {
        name: {
            "seconds": timing.spread(taken),
            **({} if name == OURS else {"slower": timing.times_as_fast(seconds[OURS], taken)}),
        }
        for name, taken in seconds.items()
    }
