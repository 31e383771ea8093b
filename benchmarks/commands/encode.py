"""Texts per second by length class, at the default batch size and at the best one, beside the machine's limit."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timing
import workloads
from contenders import BATCH_SIZE, BATCH_SIZES, ONNX, PRECISIONS, REFERENCE, Contender, Encode, make_all
from limits import Rates, forward_flops, share
from machine import table
from numpy.typing import NDArray
from scipy.stats import spearmanr
from speed_tables import PEERS_OF

from minisbert import SentenceTransformer
from minisbert.data.roles import training_rows
from minisbert.storage.locate import packaged_model

SECONDS = 2.0  # the reference at its default batch size takes at least so long for the texts of a class
QUICK_SECONDS = 0.3
QUICK_ROWS = 64  # of STS-B dev


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time all contenders on every length class, and compare what they return."""
    made, missing = make_all(options.threads)
    tokenizer = SentenceTransformer(packaged_model(), device="cpu", truncation="count").transformer.tokenizer
    rates = Rates()
    classes = {}
    for kind in workloads.CLASSES:
        texts = enough_texts(made, options, kind)
        lengths = tokenizer(texts).lengths.tolist()
        classes[kind] = {**about(lengths), **compare(made, texts, lengths, rates, options)}
        print(_class_table(kind, classes[kind]), flush=True)
    return {
        "classes": classes,
        "spearman": spearman(made, options.data, rows=QUICK_ROWS if options.quick else None),
        "not_available": missing,
        "limits": rates.best(),
        "limits_not_available": rates.missing,
    }


def enough_texts(made: Mapping[str, Contender], options: argparse.Namespace, kind: str) -> list[str]:
    """So many texts of a class that the reference takes long enough."""
    found = workloads.texts(options.data, kind)
    slowest = made.get(REFERENCE) or next(iter(made.values()))
    encode, seconds = slowest.at(BATCH_SIZE), QUICK_SECONDS if options.quick else SECONDS
    encode(found[:BATCH_SIZE])  # warms up
    count = BATCH_SIZE
    while True:
        start = time.perf_counter()
        encode(found[:count])
        passed = time.perf_counter() - start
        if passed >= seconds or count >= len(found) or (options.quick and count >= 2 * BATCH_SIZE):
            return found[:count]
        count = min(len(found), 1 + max(count + BATCH_SIZE, int(count * seconds / passed * 1.1)))


def about(lengths: list[int]) -> dict[str, Any]:
    """What a reader has to know of the texts."""
    return {
        "texts": len(lengths),
        "tokens": sum(lengths),
        "mean_tokens": round(sum(lengths) / len(lengths), 1),
        "histogram": workloads.histogram(lengths),
        "flops": forward_flops(lengths),
    }


def compare(
    made: Mapping[str, Contender], texts: list[str], lengths: list[int], rates: Rates, options: argparse.Namespace
) -> dict[str, Any]:
    """Time each contender in turn, the limit between them, and hold their embeddings to the reference's."""
    tried = BATCH_SIZES[::2] if options.quick else BATCH_SIZES
    rounds = options.rounds
    sizes = {name: best_batch_size(one, texts, tried) if one.batches else None for name, one in made.items()}
    runs: dict[str, Encode] = {}
    batch: dict[str, int | None] = {}
    for name, one in made.items():
        runs[name], batch[name] = one.at(BATCH_SIZE), BATCH_SIZE if one.batches else None
        size = sizes[name]
        if size is not None:
            runs[f"{name}, best batch"], batch[f"{name}, best batch"] = one.at(size), size
    embeddings = {name: encode(texts) for name, encode in runs.items()}  # also the warm-up
    timed: dict[str, Callable[[], object]] = {name: _on(encode, texts) for name, encode in runs.items()}
    seconds = timing.interleaved({**timed, "": rates.measure}, rounds)
    seconds.pop("")
    limits = rates.best(last=rounds)
    flops = forward_flops(lengths)
    result = {}
    for name, taken in seconds.items():
        median = timing.spread(taken)["median"]
        limit = limits.get(PRECISIONS[name.removesuffix(", best batch")])
        result[name] = {
            "batch_size": batch[name],
            "seconds": [round(value, 4) for value in taken],
            "texts_per_second": len(texts) / median,
            "tokens_per_second": sum(lengths) / median,
            "times_as_fast_as": {
                other: timing.times_as_fast(taken, than) for other, than in seconds.items() if other in baselines(name)
            },
            "share_of_limit": share(flops, median, limit["gflops"]) if limit else None,
            **(differences(embeddings[name], embeddings[REFERENCE]) if REFERENCE in embeddings else {}),
        }
    at_limit = {precision: flops / limit["gflops"] / 1e9 for precision, limit in limits.items()}
    return {"contenders": result, "limits": limits, "seconds_at_limit": at_limit}


def baselines(name: str) -> tuple[str, ...]:
    """What a contender is compared with: the reference, ONNX Runtime, and peers in its precision at their best."""
    return REFERENCE, ONNX, *(f"{peer}, best batch" for peer in PEERS_OF.get(name, ()))


def best_batch_size(one: Contender, texts: list[str], tried: Sequence[int]) -> int:
    """The batch size at which a contender took least time, in one try of each."""
    taken = {}
    for size in tried:
        start = time.perf_counter()
        one.encode(texts, size)
        taken[size] = time.perf_counter() - start
    return min(taken, key=lambda size: taken[size])


def differences(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> dict[str, float]:
    """How far two sets of embeddings are apart."""
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return {"max_difference": float(np.abs(a - b).max()), "min_cosine": float(cosine.min())}


def spearman(made: Mapping[str, Contender], data: Path | None, rows: int | None = None) -> dict[str, float]:
    """Rank correlation of each contender's cosines with the scores of STS-B dev, where that is at hand."""
    file = data / "stsb/stsb_dev.tsv.gz" if data is not None else None
    if file is None or not file.is_file():
        return {}
    pairs = training_rows(file)
    found = {}
    for name, one in made.items():
        first, second = (one.encode(texts[:rows], BATCH_SIZE).astype(np.float64) for texts in pairs.texts.values())
        norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        found[name] = float(spearmanr((pairs.labels or [])[:rows], (first * second).sum(1) / norms)[0])
    return found


def table_of(result: dict[str, Any]) -> str:
    """What comes after the tables of the classes."""
    lines = [f"{name} is not available: {reason}" for name, reason in result["not_available"].items()]
    lines += [f"limit of {name} not measured: {reason}" for name, reason in result["limits_not_available"].items()]
    lines += [
        f"limit {precision}: {best['gflops']:,.0f} GFLOP/s ({best['by']})"
        for precision, best in result["limits"].items()
    ]
    scores = [(name, value) for name, value in result["spearman"].items()]
    return "\n".join([*lines, table([("contender", "STS-B dev Spearman"), *scores])])


def _class_table(kind: str, found: Mapping[str, Any]) -> str:
    rows: list[tuple[Any, ...]] = [
        (
            "",
            "batch",
            "texts/s",
            "tokens/s",
            "x reference",
            "low",
            "high",
            "x ORT",
            "of limit",
            "max diff",
            "min cosine",
        )
    ]
    for name, one in found["contenders"].items():
        fast = one["times_as_fast_as"]
        ours, onnx = (fast.get(other, {}) for other in (REFERENCE, ONNX))
        rows.append(
            (
                name,
                one["batch_size"] or "",
                f"{one['texts_per_second']:,.0f}",
                f"{one['tokens_per_second']:,.0f}",
                *(f"{ours[part]:.2f}" if ours else "" for part in ("median", "low", "high")),
                f"{onnx['median']:.2f}" if onnx else "",
                f"{one['share_of_limit']:.0%}" if one["share_of_limit"] else "",
                f"{one['max_difference']:.1e}" if "max_difference" in one else "",
                f"{one['min_cosine']:.6f}" if "min_cosine" in one else "",
            )
        )
    for precision, seconds in found["seconds_at_limit"].items():
        rate = [f"{found[unit] / seconds:,.0f}" for unit in ("texts", "tokens")]
        rows.append((f"limit, {precision}", "", *rate, *[""] * 7))
    shape = ", ".join(f"{name}: {count}" for name, count in found["histogram"].items())
    return f"{kind}: {found['texts']:,} texts, mean {found['mean_tokens']} tokens ({shape})\n{table(rows)}\n"


def _on(encode: Encode, texts: list[str]) -> Callable[[], object]:
    return lambda: encode(texts)
