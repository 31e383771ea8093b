"""Rows for model cards, the same for minisbert and for the reference."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeAlias

Columns: TypeAlias = dict[str, list[Any]]
WORDS = "the a cat dog sat on mat ran fast slow red blue sky sea tree one two three how what is why not".split()
AWKWARD = [
    "plain",
    "two\nlines",
    "a | b \\| c",
    "<b>bold</b> `code` **stars** &amp;",
    "long " * 300,
    "naïve café — “quoted” ’tis 😀 我们",
    'it\'s "both"',
    "- list: item # no comment",
    "---",
    " lead and trail ",
    "tab\there",
    "### Training Dataset",
    "carriage\rreturn",
    "line\u2028separator and \x85",
]


def texts(n: int, seed: int, most: int = 9) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, most))) for _ in range(n)]


def pairs(n: int = 24, **more: list[Any]) -> Columns:
    return {"anchor": texts(n, 1), "positive": texts(n, 2), **more}


def scored(n: int = 24) -> Columns:
    scores = [round(random.Random(i).random(), 3) for i in range(n)]
    return {"sentence1": texts(n, 3), "sentence2": texts(n, 4), "score": scores}


def scored_examples(n: int = 24) -> Columns:
    first, second, scores = scored(n).values()
    return {"sentence_0": first, "sentence_1": second, "label": scores}


def triplets(n: int = 8) -> Columns:
    return {"anchor": texts(n, 5), "positive": texts(n, 6), "negative": texts(n, 7)}


def examples(columns: Columns, make: Callable[..., Any]) -> list[Any]:
    """Rows as `fit` takes them, from the InputExample of either library."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    labels = [{"label": row.pop("label")} if "label" in row else {} for row in rows]
    return [make(texts=list(row.values()), **label) for row, label in zip(rows, labels, strict=True)]


# Cases that minisbert trains too: rows by name of the data set ("" for the only one), loss of each, evaluators (kind
# and name), seed, rows to evaluate on, settings (here, and there), and whether the best weights are kept, of steps that
# differ.
OPTIONS = {
    "lr_scheduler_type": "cosine_with_restarts",
    "lr_scheduler_kwargs": {"num_cycles": 2},
    "learning_rate_mapping": {r"layer\.0": 1e-4},
    "prompts": {"sentence1": "why: "},
}
TRAINED: dict[str, dict[str, Any]] = {
    "ours_pairs": {"rows": {"": pairs()}, "losses": {"": "MultipleNegativesRankingLoss"}, "dev": [], "seed": 42},
    "ours_scored": {
        "rows": {"": scored()},
        "losses": {"": "CosineSimilarityLoss"},
        "dev": [("similarity", "dev-set")],
        "seed": 1,
    },
    "ours_ints": {
        "rows": {"": {"query": AWKWARD, "passage": AWKWARD[::-1], "label": [0, 1] * 7}},
        "losses": {"": "CosineSimilarityLoss"},
        "dev": [("similarity", "")],
        "seed": 3,
    },
    "ours_bools": {
        "rows": {"": pairs(label=[True, False] * 12)},
        "losses": {"": "CosineSimilarityLoss"},
        "dev": [],
        "seed": 4,
    },
    "ours_label_first": {
        "rows": {"": {"label": [i % 3 / 2 for i in range(24)], **pairs()}},
        "losses": {"": "CosineSimilarityLoss"},
        "dev": [],
        "seed": 5,
    },
    "ours_label_between": {
        "rows": {"": {"query": texts(24, 1), "score": [i % 2 for i in range(24)], "answer": texts(24, 2)}},
        "losses": {"": "CosineSimilarityLoss"},
        "dev": [],
        "seed": 6,
    },
    "ours_several": {
        "rows": {"first": pairs(16), "scored": scored(16)},
        "losses": {"first": "MultipleNegativesRankingLoss", "scored": "CosineSimilarityLoss"},
        "dev": [("similarity", "dev")],
        "seed": 7,
    },
    "ours_few": {"rows": {"": pairs(4)}, "losses": {"": "MultipleNegativesRankingLoss"}, "dev": [], "seed": 42},
    "ours_two_evaluators": {
        "rows": {"": scored()},
        "losses": {"": "CosineSimilarityLoss"},
        "dev": [("similarity", "dev"), ("similarity", "the-test")],
        "seed": 8,
    },
    "ours_mixed_evaluators": {
        "rows": {"": pairs()},
        "losses": {"": "MultipleNegativesRankingLoss"},
        "dev": [("triplet", "ranks"), ("similarity", ""), ("binary", "two")],
        "seed": 9,
    },
    "ours_held_out": {
        "rows": {"": scored()},
        "losses": {"": "CosineSimilarityLoss"},
        "dev": [("similarity", "dev")],
        "seed": 2,
        "held_out": {"": scored(13)},
        "settings": [
            OPTIONS,
            OPTIONS,
        ],
    },
    "ours_several_held_out": {
        "rows": {"first": pairs(16), "scored": scored(16)},
        "losses": {"first": "MultipleNegativesRankingLoss", "scored": "CosineSimilarityLoss"},
        "dev": [],
        "seed": 7,
        "held_out": {"scored": scored(9), "first": pairs(11)},
        "settings": [
            {"eval_batch_size": 5, "prompts": "why: "},
            {"per_device_eval_batch_size": 5, "prompts": "why: "},
        ],
    },
    "ours_best": {
        "rows": {"": scored()},
        "losses": {"": "CosineSimilarityLoss"},
        "dev": [("triplet", "ranks"), ("similarity", "dev")],
        "seed": 1,
        "best": True,
    },
}

# The same through `fit`; each data set is an objective, in the order of the names.
FITTED: dict[str, dict[str, Any]] = {
    # With 24 rows a similarity in the card is 0.735150015, which half a float32 step rounds to 0.7351 or to 0.7352.
    "fit_scored": {
        "rows": {"": scored_examples(36)},
        "losses": {"": "CosineSimilarityLoss"},
        "dev": [],
        "settings": {},
    },
    "fit_pairs": {
        "rows": {"": pairs(37)},
        "losses": {"": "MultipleNegativesRankingLoss"},
        "dev": [],
        "settings": {"optimizer_params": {"lr": 1e-3}, "weight_decay": 0.3, "max_grad_norm": 0.5},
    },
    "fit_two": {
        "rows": {"a": scored_examples(20), "b": pairs(16)},
        "losses": {"a": "CosineSimilarityLoss", "b": "MultipleNegativesRankingLoss"},
        "dev": [],
        "settings": {},
    },
    "fit_evaluated": {
        "rows": {"": scored_examples()},
        "losses": {"": "CosineSimilarityLoss"},
        "dev": [("similarity", "dev")],
        "settings": {"evaluation_steps": 2},
    },
    "fit_several_evaluators": {
        "rows": {"": scored_examples()},
        "losses": {"": "CosineSimilarityLoss"},
        "dev": [("triplet", "ranks"), ("similarity", "dev")],
        "settings": {},
    },
}
