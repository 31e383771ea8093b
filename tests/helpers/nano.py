"""A small folder with the form of NanoBEIR."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tiny_models import WORDS

NAMES = ("NanoNQ", "NanoSciFact")


def nano_beir(folder: Path) -> Path:
    """Write queries, corpus and qrels of two data sets, and what tells the package datasets where they are."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    configurations: dict[str, list[str]] = {"corpus": [], "queries": [], "qrels": []}
    for name in NAMES:
        texts = [" ".join(draw.choice(WORDS, draw.integers(1, 12))) for _ in range(60)]
        corpus = [{"_id": f"d{number}", "text": text} for number, text in enumerate(texts[:50])]
        queries = [{"_id": f"q{number}", "text": text} for number, text in enumerate(texts[50:])]
        pairs = [
            {"query-id": query["_id"], "corpus-id": f"d{document}"}
            for query in queries
            for document in draw.choice(50, 3, replace=False)
        ]
        for part, rows in (("corpus", [*corpus, {"_id": "empty", "text": ""}]), ("queries", queries), ("qrels", pairs)):
            _write(folder / f"{part}-{name}.jsonl", rows)
            configurations[part].append(f"  - split: {name}\n    path: {part}-{name}.jsonl")
    described = "".join(
        f"- config_name: {part}\n  data_files:\n" + "\n".join(files) + "\n" for part, files in configurations.items()
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{described}---\n", encoding="utf-8")
    return folder


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
