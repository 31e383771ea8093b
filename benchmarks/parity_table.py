"""The table of differences from the reference, of the rows that `parity.py` has written."""

from __future__ import annotations

from typing import Any

from speed_tables import markdown

# Groups of the parity table, and the beginnings of the names of the rows in each.
PARITY_GROUPS = {
    "replay: the loss of every batch, and the final weights": (
        *(f"replay of {version}: {kind}" for version in ("6.2.0", "5.1.2") for kind in ("Trainer", "fit", "other")),
        *("replay with options: final", "replay with options: losses"),
    ),
    "replay of losses that round differently in the reference": ("replay of 6.2.0: losses that round",),
    "cards of the reference followed to its weights: 6.2.0": ("cards of 6.2.0 followed",),
    "packed training without dropout, 50 steps, float64": ("packed training without dropout, 50 steps, float64",),
    "packed training without dropout, 50 steps, float32: losses": (
        "packed training without dropout, 50 steps, float32",
    ),
    "losses and their gradients, in four dtypes": (
        *("AnglE", "BatchAll", "BatchHard", "BatchSemi", "CachedGIST", "CachedMultiple", "CoSENT", "Contrastive"),
        *("Cosine", "DistillKL", "EmbedDistill", "GISTEmbed", "GlobalOrthogonal", "MSELoss", "MarginMSE", "Matryoshka"),
        *("MegaBatch", "MultipleNegatives", "OnlineContrastive", "SoftmaxLoss", "TripletLoss"),
    ),
    "`encode`, values": (
        "encode: varied",
        "encode: every",
        "encode: joint",
        "encode: pooling",
        "encode: an",
        "encode_",
    ),
    "model families: embeddings": (
        *(f"encode: {kind}" for kind in ("electra", "gemma3", "gte", "modernbert", "nomic", "qwen3")),
        "embeddings in training",
    ),
    "model families: gradients, beside the largest element": ("gradients: ",),
    "static models: embeddings": ("encode: static",),
    "model folders: embeddings when loaded here": ("older folders", "folders of", "Dense", "bare", "checkpoints"),
    "model folders: configurations and tokenizers as 6.2 reads them": ("sentence_bert", "tokenizers"),
    "model folders written here, loaded by the reference": ("folders written here", "weights file"),
    "files that change when a folder is rewritten": ("files that change",),
    "similarities, quantization, search, mining": (
        "similarity functions",
        "normalize",
        "quantize",
        "semantic_search",
        "paraphrase",
        "community",
        "mine_hard",
    ),
    "embeddings in fewer bits: levels": ("encode: levels",),
    "evaluators: metrics and CSV files": (
        "EmbeddingSimilarityEvaluator",
        "InformationRetrievalEvaluator",
        "TripletEvaluator",
        "BinaryClassificationEvaluator",
        "RerankingEvaluator",
        "ParaphraseMiningEvaluator",
        "SequentialEvaluator",
        *("MSEEvaluator", "TranslationEvaluator", "LabelAccuracy", "NanoBEIR"),
    ),
    "`minisbert.compat`: evaluators and functions": ("compat ",),
    "`minisbert.compat`: losses of features, and their gradients": ("compat: ",),
    "model cards: fields that differ": ("model card",),
}


def parity_table(result: dict[str, Any]) -> str:
    """Return one row for each group: the number of comparisons, and the largest difference."""
    rows = []
    for group, beginnings in PARITY_GROUPS.items():
        found = [row for what, row in result["rows"].items() if what.startswith(beginnings)]
        largest = max(row["largest"] for row in found)
        shown = f"{largest:g}" if largest in (0, 1) else f"{largest:.1e}"
        rows.append((group, f"{sum(row['cases'] for row in found):,}", shown))
    return (
        f"Differences from sentence-transformers {', '.join(result['references'])} (`benchmarks/parity.py`, "
        f"{result['tests']['passed']} tests; it prints every row with its bound):\n\n"
        + markdown(("what is compared", "cases", "largest difference"), rows)
    )
