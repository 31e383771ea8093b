"""Rows for model cards, the same for minisbert and for the reference."""

from __future__ import annotations

import random
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


# Cases that minisbert trains too: rows by name of the data set ("" for the only one), loss of each, settings.
TRAINED: dict[str, dict[str, Any]] = {
    "ours_pairs": {"rows": {"": pairs()}, "losses": {"": "MultipleNegativesRankingLoss"}, "dev": None, "seed": 42},
    "ours_scored": {"rows": {"": scored()}, "losses": {"": "CosineSimilarityLoss"}, "dev": "dev-set", "seed": 1},
    "ours_ints": {
        "rows": {"": {"query": AWKWARD, "passage": AWKWARD[::-1], "label": [0, 1] * 7}},
        "losses": {"": "CosineSimilarityLoss"},
        "dev": "",
        "seed": 3,
    },
    "ours_bools": {
        "rows": {"": pairs(label=[True, False] * 12)},
        "losses": {"": "CosineSimilarityLoss"},
        "dev": None,
        "seed": 4,
    },
    "ours_label_first": {
        "rows": {"": {"label": [i % 3 / 2 for i in range(24)], **pairs()}},
        "losses": {"": "CosineSimilarityLoss"},
        "dev": None,
        "seed": 5,
    },
    "ours_label_between": {
        "rows": {"": {"query": texts(24, 1), "score": [i % 2 for i in range(24)], "answer": texts(24, 2)}},
        "losses": {"": "CosineSimilarityLoss"},
        "dev": None,
        "seed": 6,
    },
    "ours_several": {
        "rows": {"first": pairs(16), "scored": scored(16)},
        "losses": {"first": "MultipleNegativesRankingLoss", "scored": "CosineSimilarityLoss"},
        "dev": "dev",
        "seed": 7,
    },
    "ours_few": {"rows": {"": pairs(4)}, "losses": {"": "MultipleNegativesRankingLoss"}, "dev": None, "seed": 42},
}
