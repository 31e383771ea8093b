"""Search a small corpus: which passage answers a question?

python examples/semantic_search.py "Why do antibiotics stop working?"
"""

from __future__ import annotations

import argparse
import csv

from minisbert import SentenceTransformer, util
from minisbert.data.packaged import GRADED_ANSWERS_HELDOUT, GRADED_ANSWERS_TRAIN


def passages() -> list[str]:
    """Return the reference answers of the packaged set, each once."""
    found: dict[str, None] = {}
    for path in (GRADED_ANSWERS_TRAIN, GRADED_ANSWERS_HELDOUT):
        with path.open(encoding="utf-8", newline="") as file:
            found.update((row["reference"], None) for row in csv.DictReader(file, delimiter="\t"))
    return list(found)


def main() -> None:
    """Embed the corpus once, then answer each question."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", default=["Why do antibiotics stop working?", "What makes prices rise?"])
    parser.add_argument("--top", type=int, default=3, help="passages for each question")
    options = parser.parse_args()

    model = SentenceTransformer("all-MiniLM-L6-v2")
    corpus = passages()
    embeddings = model.encode_document(corpus, normalize_embeddings=True)  # (passages, 384)
    queries = model.encode_query(options.questions, normalize_embeddings=True)
    hits = util.semantic_search(queries, embeddings, top_k=options.top, score_function=util.dot_score)

    print(f"{len(corpus)} passages")
    for question, found in zip(options.questions, hits, strict=True):
        print(f"\n{question}")
        for hit in found:
            print(f"  {hit['score']:.3f}  {corpus[hit['corpus_id']]}")


if __name__ == "__main__":
    main()
