"""How training and embedding grow: ranks, rows of a token store, and engines with the cores of a plain loop."""

from __future__ import annotations

import argparse
from typing import Any

import scale_engines
import scale_ranks
import scale_store
import workloads
from machine import table

from minisbert import SentenceTransformer
from minisbert.storage.locate import packaged_model

PAIRS, QUICK_PAIRS = 100_000, 2_000  # of which stores are built
ROWS, QUICK_ROWS = (1_000_000, 10_000_000, 50_000_000), (20_000,)  # of made-up stores that are trained on
STEPS, QUICK_STEPS = 200, 2
MOST_ROUNDS = 5


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one after the other, and print each table when it is known."""
    options = argparse.Namespace(**{**vars(options), "rounds": min(options.rounds, MOST_ROUNDS)})
    found: dict[str, Any] = {"ranks": scale_ranks.measure(options)}
    print(scale_ranks.table_of(found["ranks"]), flush=True)
    found["store"] = _store(options)
    print(_store_table(found["store"]), flush=True)
    found["engines"] = scale_engines.measure(options)
    return found


def table_of(result: dict[str, Any]) -> str:
    """The last of the tables; the others are printed as soon as they are known."""
    return scale_engines.table_of(result["engines"])


def _store(options: argparse.Namespace) -> dict[str, Any]:
    model = SentenceTransformer(packaged_model(), device="cpu", truncation="count")
    count = QUICK_PAIRS if options.quick else PAIRS
    titles = workloads.many(options.data, 2 * count)
    pairs = list(zip(titles[::2], titles[1::2], strict=True))
    rows, steps = (QUICK_ROWS, QUICK_STEPS) if options.quick else (ROWS, STEPS)
    return {
        "build": scale_store.build_times(model, pairs, rounds=options.rounds),
        "steps": steps,
        "training": scale_store.training_memory(model, rows, steps=steps),
    }


def _store_table(result: dict[str, Any]) -> str:
    both = (result["build"], result["training"])
    return "\n\n".join(table([tuple(rows[0]), *(tuple(row.values()) for row in rows)]) for rows in both)
