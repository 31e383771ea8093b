"""README tables of what `run.py gpu` measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speed_tables import REFERENCE, about, markdown, operations, ratio

UNMEASURED = (
    "Figures on a GPU are unmeasured: `python benchmarks/run.py gpu` on a machine with a CUDA device, and then "
    "`python benchmarks/report.py --write`, put them here."
)


def whole_recipe(card: Mapping[str, Any], steps_per_second: float) -> float:
    """Seconds that a card's recipe would take at a rate, its texts being tokenized first: computed, not measured."""
    return float(card["steps"] / steps_per_second + card["rows"] * card["seconds_to_tokenize_a_row"])


def gpu(result: dict[str, Any]) -> str:
    """Encoding, the model alone, training, memory and operations on one device."""
    encoded = result["encode"]
    return "\n\n".join(
        [
            f"On a GPU (`benchmarks/run.py gpu`, {about(result)}; the device is waited for before and after): texts "
            f"per second from strings, and how many times that of {REFERENCE} in fp32, each of its precisions at its "
            f"best batch size of 32, 128 and 512. No product is in TF32. Texts repeat where there are fewer than were "
            f"embedded; differences are from {REFERENCE} in fp32.",
            _encoding(encoded["classes"]),
            f"The model alone, on packed batches that are on the device: tokens per second, and its share of two "
            f"limits measured in the same rounds: its floating-point operations at the best rate of matrix products "
            f"of these shapes, and its reading and writing, once in each kernel, at the rate of copying "
            f"({encoded['copy_gigabytes_per_second']:,.0f} GB/s).",
            _alone(encoded["classes"]),
            "Training on the GPU: optimizer steps per second without set-up, the same rows in the same order, times as "
            f"fast as {REFERENCE} in fp32 and in the same precision. The whole recipe of a card is computed from the "
            "rate, the card's steps and the time to tokenize its rows; it was not run.",
            _training(result["train"]),
            _memory(result["memory"]),
            "The Triton kernels against their plain definitions on the GPU, times as fast:",
            operations(result["kernels"]),
            *_missing(result),
        ]
    )


def _encoding(classes: Mapping[str, Any]) -> str:
    names = _names(classes, alone=False)
    header = (
        "texts/s",
        *(f"{kind}: {one['texts']:,}, mean {one['mean_tokens']:.0f} tokens" for kind, one in classes.items()),
        "largest difference",
        "smallest cosine",
    )
    rows = []
    for name in names:
        found = [one["contenders"].get(name) for one in classes.values()]
        compared = [one for one in found if one and "max_difference" in one]
        rows.append(
            (
                name,
                *(_speed(one) for one in found),
                f"{max(one['max_difference'] for one in compared):.1e}" if compared else "",
                f"{min(one['min_cosine'] for one in compared):.6f}" if compared else "",
            )
        )
    return markdown(header, rows)


def _speed(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return ""
    fast = one["times_as_fast_as"].get("fp32")
    return f"{one['texts_per_second']:,.0f}" + (f" ({ratio(fast)})" if fast else "")


def _alone(classes: Mapping[str, Any]) -> str:
    rows = []
    for name in _names(classes, alone=True):
        cells = []
        for one in classes.values():
            found = one["contenders"].get(name)
            shares = [found[part] for part in ("share_of_limit", "share_of_memory")] if found else [None]
            told = "" if None in shares else f" ({shares[0]:.0%} of products, {shares[1]:.0%} of memory)"
            cells.append(f"{found['tokens_per_second']:,.0f}{told}" if found else "")
        rows.append((name, *cells))
    return markdown(("tokens/s", *classes), rows)


def _names(classes: Mapping[str, Any], *, alone: bool) -> list[str]:
    names = dict.fromkeys(name for one in classes.values() for name in one["contenders"])
    return [name for name in names if name.startswith("model alone") == alone]


def _training(cases: Mapping[str, Any]) -> str:
    rows = []
    for name, case in cases.items():
        for side, one in case["sides"].items():
            if "not_available" in one:
                continue
            fast, card = one["times_as_fast_as"], case["card"] if side.startswith("minisbert") else None
            theirs = " (the card's)" if card and card["precision"] == side.split()[-1] else ""
            rows.append(
                (
                    f"{name}, batch {case['batch_size']:,}",
                    f"{side}{theirs}",
                    f"{one['steps_per_second']:.2f}",
                    ratio(fast.get("fp32")),
                    ratio(fast.get("own precision")),
                    f"{one['first_loss']:.4f}, {one['last_loss']:.4f}",
                    _megabytes(one["peak_mb"]),
                    f"{whole_recipe(card, one['steps_per_second']):,.0f} s" if card else "",
                )
            )
    header = ("", "", "steps/s", "of fp32", "of the same precision", "first and last loss", "peak memory")
    return markdown((*header, "the whole recipe, computed"), rows)


def _memory(found: Mapping[str, Any]) -> str:
    title = f"Peak memory of MultipleNegativesRankingLoss with a batch of {found['batch_size']:,} pairs in minisbert"
    if "not_run" in found:
        return f"{title}: not run: {found['not_run']}."
    parts = (
        f"{name}: not available ({one['not_available']})"
        if "not_available" in one
        else f"{name}: {_megabytes(one['peak_mb'])}"
        for name, one in found["parts"].items()
    )
    return f"{title} ({found['tokens']:,} tokens): {'; '.join(parts)}."


def _megabytes(value: float | None) -> str:
    return f"{value:,.0f} MB" if value is not None else "not measured"


def _missing(result: Mapping[str, Any]) -> list[str]:
    """What could not be measured, where there is something."""
    sides = {
        f"{name}, {side}": one["not_available"]
        for name, case in result["train"].items()
        for side, one in case["sides"].items()
        if "not_available" in one
    }
    encoded = result["encode"]
    of_classes = {
        f"{name}, {kind}": reason
        for kind, one in encoded["classes"].items()
        for name, reason in one["not_available"].items()
    }
    missing = {**encoded["not_available"], **of_classes, **sides, **result["kernels"]["not_available"]}
    return ["; ".join(f"not available: {name} ({reason})" for name, reason in missing.items())] if missing else []
