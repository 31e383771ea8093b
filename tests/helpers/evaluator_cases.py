"""Arguments of evaluators for comparisons with the reference, and how results are compared."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from fixed_model import FixedModel
from tiny_models import WORDS

from minisbert.similarity import cos_sim, dot_score, euclidean_sim

FUNCTIONS = ["cosine", "dot", "euclidean", "manhattan"]


def texts(count: int, *, seed: int = 0) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, draw.integers(1, 12))) for _ in range(count)]


def labelled(count: int) -> tuple[list[str], list[str], list[int]]:
    """Pairs that often share a text, with labels."""
    draw = np.random.default_rng(count)
    pool = texts(count)
    first, second = (list(draw.choice(pool, count)) for _ in range(2))
    return first, second, draw.integers(0, 2, count).tolist()


def retrieval(*, repeats: int = 50) -> tuple[dict[str, str], dict[str, str], dict[str, set[str]]]:
    """So many documents occur twice; some queries have nothing to find."""
    draw = np.random.default_rng(1)
    queries = {f"q{number}": text for number, text in enumerate(texts(40, seed=2))}
    documents = list(dict.fromkeys(texts(280, seed=3)))
    numbers = draw.permutation(len(documents) + repeats)
    corpus = {f"d{number}": documents[number % len(documents)] for number in numbers}
    relevant = {query: set(map(str, draw.choice(list(corpus), draw.integers(0, 6)))) for query in queries}
    return queries, corpus, relevant


def samples() -> list[dict[str, Any]]:
    draw = np.random.default_rng(4)
    pool = texts(400, seed=5)
    found = []
    for number in range(50):
        positive = list(dict.fromkeys(draw.choice(pool, draw.integers(0, 4))))
        negative = [text for text in dict.fromkeys(draw.choice(pool, draw.integers(0, 20))) if text not in positive]
        found.append({"query": pool[number], "positive": positive, "negative": negative})
    return found


def paraphrases() -> tuple[dict[str, str], list[tuple[str, str]]]:
    draw = np.random.default_rng(6)
    sentences = {f"s{number}": text for number, text in enumerate(dict.fromkeys(texts(300, seed=7)))}
    pairs = {tuple(map(str, draw.choice(list(sentences), 2, replace=False))) for _ in range(150)}
    return sentences, sorted(pairs)  # type: ignore[arg-type]


def as_dictionary(pairs: list[tuple[str, str]]) -> dict[str, dict[str, bool]]:
    """Pairs as the reference can read them: it looks up pairs that are not there, and trips over False."""
    found: dict[str, dict[str, bool]] = defaultdict(lambda: defaultdict(bool))
    for first, second in pairs:
        found[first][second] = True
    return found


def parallel() -> list[dict[str, str]]:
    """Rows in three languages, of which some lack one."""
    columns = {name: texts(60, seed=seed) for seed, name in enumerate(("en", "de", "fr"), 11)}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    rows[3]["de"], rows[5]["fr"], rows[8]["en"] = "", "  ", ""
    return rows


PARALLEL = parallel()
# Many are their own translations, and some texts occur twice.
TRANSLATIONS = ([*texts(90, seed=14), "one", "one"], [*texts(90, seed=14)[:50], *texts(42, seed=15)])
TRIPLETS = tuple(texts(120, seed=seed) for seed in (8, 9, 10))
SCORES = {"dot": dot_score, "cosine": cos_sim, "euclid": euclidean_sim}
CASES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("TripletEvaluator", TRIPLETS, {}),
    ("TripletEvaluator", TRIPLETS, {"name": "dev", "similarity_fn_names": FUNCTIONS}),
    ("TripletEvaluator", TRIPLETS, {"margin": 0.1, "truncate_dim": 5}),
    ("TripletEvaluator", TRIPLETS, {"margin": {"dot": 1}, "similarity_fn_names": ["dot", "manhattan"]}),
    ("TripletEvaluator", TRIPLETS, {"main_similarity_function": "euclidean"}),
    ("BinaryClassificationEvaluator", labelled(150), {}),
    ("BinaryClassificationEvaluator", labelled(151), {"name": "dev", "similarity_fn_names": FUNCTIONS}),
    ("BinaryClassificationEvaluator", labelled(30), {"similarity_fn_names": ["manhattan"], "truncate_dim": 2}),
    ("InformationRetrievalEvaluator", retrieval(), {}),
    ("InformationRetrievalEvaluator", retrieval(), {"name": "dev", "corpus_chunk_size": 64, "truncate_dim": 2}),
    (
        "InformationRetrievalEvaluator",
        retrieval(),
        {
            "score_functions": SCORES,
            "accuracy_at_k": [7, 2],
            "precision_recall_at_k": [4],
            "mrr_at_k": [1, 500],
            "ndcg_at_k": [3, 5, 500],
            "map_at_k": [2, 10],
            "corpus_chunk_size": 100,
            "write_predictions": True,
        },
    ),
    ("InformationRetrievalEvaluator", retrieval(), {"score_functions": SCORES, "main_score_function": "dot"}),
    ("RerankingEvaluator", (samples(),), {}),
    ("RerankingEvaluator", (samples(),), {"name": "dev", "at_k": 3, "use_batched_encoding": False}),
    ("RerankingEvaluator", ({1: samples()[3], 2: samples()[4]},), {"similarity_fct": dot_score, "truncate_dim": 7}),
    ("ParaphraseMiningEvaluator", paraphrases(), {}),
    ("ParaphraseMiningEvaluator", paraphrases(), {"name": "dev", "add_transitive_closure": True}),
    ("ParaphraseMiningEvaluator", paraphrases(), {"top_k": 30, "max_pairs": 3000, "truncate_dim": 3}),
    ("ParaphraseMiningEvaluator", (paraphrases()[0], None, as_dictionary(paraphrases()[1])), {}),
    ("MSEEvaluator", (*TRIPLETS[:2], FixedModel()), {}),
    ("MSEEvaluator", (*TRIPLETS[:2], FixedModel()), {"name": "dev", "truncate_dim": 3}),
    ("MSEEvaluatorFromDataFrame", (PARALLEL, FixedModel(), [("en", "de"), ("de", "fr")]), {}),
    ("MSEEvaluatorFromDataFrame", (PARALLEL, FixedModel(), [("fr", "en")]), {"name": "dev", "truncate_dim": 5}),
    ("TranslationEvaluator", TRANSLATIONS, {}),
    ("TranslationEvaluator", TRANSLATIONS, {"name": "dev", "truncate_dim": 2}),
]
NAMES = sorted({name for name, _, _ in CASES})


def difference(ours: dict[str, float], theirs: dict[str, float]) -> float:
    assert list(ours) == list(theirs)
    assert all(type(value) is float for value in (*ours.values(), *theirs.values()))
    return max(abs(ours[name] - theirs[name]) for name in theirs)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
