"""Compare models and precisions on pairs of texts with human scores.

python examples/evaluate_sts.py all-MiniLM-L6-v2 my-model --data scored.tsv --columns first,second,score
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

from minisbert import SentenceTransformer
from minisbert.data.packaged import GRADED_ANSWERS_HELDOUT
from minisbert.evaluation import EmbeddingSimilarityEvaluator


def main() -> None:
    """Print a row for each model and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["all-MiniLM-L6-v2"], help="folders or names")
    parser.add_argument("--data", type=Path, default=GRADED_ANSWERS_HELDOUT, help="a file of columns separated by tabs")
    parser.add_argument("--columns", default="reference,answer,score", help="two texts and the score")
    parser.add_argument("--dtypes", default="float32,bfloat16,int8")
    options = parser.parse_args()

    with options.data.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    first, second, scores = ([row[name] for row in rows] for name in options.columns.split(","))
    evaluator = EmbeddingSimilarityEvaluator(first, second, [float(score) for score in scores])
    print(f"{'model':24} {'dtype':10} {'Spearman':>8} {'Pearson':>8} {'seconds':>8}")
    for name in options.models:
        for dtype in options.dtypes.split(","):
            model = SentenceTransformer(name, dtype=dtype)
            start = time.perf_counter()
            metrics = evaluator(model)
            seconds = time.perf_counter() - start
            spearman, pearson = metrics["spearman_cosine"], metrics["pearson_cosine"]
            print(f"{name:24} {dtype:10} {spearman:8.4f} {pearson:8.4f} {seconds:8.2f}")


if __name__ == "__main__":
    main()
