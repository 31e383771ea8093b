"""Steps per second of both Trainers: the recipes of two model cards, and larger batches."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import timing
import workloads
from commands.train import SEED, Course, lengths_of, train
from contenders import REFERENCE
from limits import training_flops
from machine import table

from gpu import memory
from gpu.sizes import DTYPES, Sizes, Window, sizes_for
from gpu.tables import whole_recipe
from minisbert import SentenceTransformer, TrainingConfig
from minisbert.recipes import read_recipe
from minisbert.storage.locate import packaged_model

RECIPES = Path(__file__).parents[1] / "recipes"
CARDS = ("002-stackexchange-490k", "004-msmarco-533k")
LARGER = (256, 4_096)
SIDES = tuple(f"{library} {precision}" for library in ("minisbert", REFERENCE) for precision in DTYPES)
BASELINE = f"{REFERENCE} fp32"


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        loss: class name.
        batch_size: rows in a batch.
        window: what is timed.
        precision: that of the card, if it is a card's.
        card_steps: optimizer steps of the card's whole recipe, in such batches.
        card_rows: rows of it.
    """

    loss: str
    batch_size: int
    window: Window
    precision: str | None = None
    card_steps: int | None = None
    card_rows: int | None = None


def cases(sizes: Sizes) -> dict[str, Case]:
    """Loss and batch size of the cards, and MultipleNegativesRankingLoss with more rows."""
    found = {}
    for name in CARDS:
        recipe = read_recipe(RECIPES / f"{name}.yaml")
        config = TrainingConfig(**recipe.settings)
        batch_size = min(config.batch_size, sizes.largest_batch)
        window = sizes.window(batch_size)
        steps = replace(config, batch_size=batch_size).steps_over(recipe.rows or 0)
        found[f"card {name}"] = Case(recipe.loss, batch_size, window, config.precision, steps, recipe.rows)
    for rows in sorted({min(rows, sizes.largest_batch) for rows in LARGER}):
        found[f"MultipleNegativesRanking, batch {rows:,}"] = Case(
            "MultipleNegativesRankingLoss", rows, sizes.window(rows)
        )
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train each case each way in turn, several times from the same start."""
    found = {}
    for name, case in cases(sizes_for(options)).items():
        found[name] = compare(case, options)
        print(_case_table(name, found[name]), flush=True)
    return found


def compare(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Time the sides in turn; the first window of each run warms up."""
    window = case.window
    count = case.batch_size * window.steps * window.count
    source: Mapping[str, list[Any]] = (
        workloads.rows(options.data, count) if "Ranking" in case.loss else workloads.rated_titles(options.data, count)
    )
    rows = workloads.repeated_rows(count, source)
    settings = {
        "max_steps": window.steps * window.count,
        "batch_size": case.batch_size,
        "learning_rate": 2e-5,
        "seed": SEED,
        "log_every": window.steps,
    }
    made: dict[str, list[Course]] = {side: [] for side in SIDES}
    peaks: dict[str, float | None] = {}
    missing: dict[str, str] = {}
    for number in range(options.rounds):
        for side in timing.order(SIDES, number):
            if side not in missing:
                try:
                    run = partial(_course, side, case.loss, rows, settings, options.device)
                    course, peak = memory.peak_of(run, options.device)
                except Exception as error:  # the other sides can still be measured
                    missing[side] = f"{type(error).__name__}: {error}".splitlines()[0]
                    continue
                made[side].append(course)
                peaks[side] = max(peak, peaks.get(side) or 0.0) if peak is not None else None
    lengths = lengths_of(rows)
    seconds = {side: [_seconds_of_a_step(one, window) for one in made[side]] for side in SIDES if side not in missing}
    return {
        "loss": case.loss,
        "batch_size": case.batch_size,
        "steps": window.steps * (window.count - 1),
        "logged_every": window.steps,
        "rows": count,
        "different_rows": len(next(iter(source.values()))),
        "mean_tokens": round(sum(lengths) / len(lengths), 1),
        "histogram": workloads.histogram(lengths),
        "flops_of_a_step": training_flops(lengths) / window.steps / window.count,
        "card": _card(case, rows),
        "sides": {side: _about(side, made[side], seconds, peaks.get(side)) for side in seconds}
        | {side: {"not_available": reason} for side, reason in missing.items()},
    }


def _card(case: Case, rows: Mapping[str, list[Any]]) -> dict[str, Any] | None:
    """What is needed to tell how long the whole recipe would take."""
    if case.card_steps is None:
        return None
    tokenizer = SentenceTransformer(packaged_model(), device="cpu", truncation="count").transformer.tokenizer
    texts = [text for name, values in rows.items() if name != "label" for text in values]
    taken = timing.interleaved({"tokenize": lambda: tokenizer(texts)}, 2)["tokenize"]
    return {
        "precision": case.precision,
        "steps": case.card_steps,
        "rows": case.card_rows,
        "seconds_to_tokenize_a_row": min(taken) / len(next(iter(rows.values()))),
    }


def _course(side: str, loss: str, rows: dict[str, Any], settings: dict[str, Any], device: str) -> Course:
    return train(side, loss, rows, settings, device=device)[0]


def _seconds_of_a_step(course: Course, window: Window) -> float:
    return (course.ends[-1] - course.ends[0]) / (window.steps * (window.count - 1))


def _about(side: str, courses: list[Course], seconds: Mapping[str, list[float]], peak: float | None) -> dict[str, Any]:
    """One side's figures, with ratios to the reference in fp32 and in the side's own precision."""
    against = {"fp32": BASELINE, "own precision": f"{REFERENCE} {side.split()[-1]}"}
    return {
        "steps_per_second": 1 / timing.spread(seconds[side])["median"],
        "seconds": [round(value, 5) for value in seconds[side]],
        "times_as_fast_as": {
            name: timing.times_as_fast(seconds[side], seconds[other])
            for name, other in against.items()
            if other in seconds
        },
        "first_loss": courses[0].losses[0],
        "last_loss": courses[0].losses[-1],
        "peak_mb": peak,
    }


def _case_table(name: str, found: dict[str, Any]) -> str:
    header = ("", "steps/s", "x ref. fp32", "low", "high", "x ref. own", "first loss", "last loss", "peak MB", "recipe")
    rows: list[tuple[Any, ...]] = [header]
    for side, one in found["sides"].items():
        if "not_available" in one:
            rows.append((side, f"not available: {one['not_available']}", *[""] * (len(header) - 2)))
            continue
        base, own = (one["times_as_fast_as"].get(other, {}) for other in ("fp32", "own precision"))
        whole = found["card"] and side.startswith("minisbert") and whole_recipe(found["card"], one["steps_per_second"])
        rows.append(
            (
                side,
                f"{one['steps_per_second']:.2f}",
                *(f"{base[part]:.2f}" if base else "" for part in ("median", "low", "high")),
                f"{own['median']:.2f}" if own else "",
                one["first_loss"],
                one["last_loss"],
                f"{one['peak_mb']:,.0f}" if one["peak_mb"] is not None else "",
                f"{whole:,.0f} s, computed" if whole else "",
            )
        )
    shape = ", ".join(f"{span}: {count}" for span, count in found["histogram"].items())
    about = f"{found['different_rows']:,} different rows, mean {found['mean_tokens']} tokens a text ({shape})"
    card = found["card"]
    recipe = f"\nthe card trains {card['steps']:,} steps in {card['precision']}" if card else ""
    return f"{name}: {found['loss']}, batch {found['batch_size']}, {about}{recipe}\n{table(rows)}\n"
