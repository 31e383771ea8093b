"""The tables and the chart of how training and embedding grow, from results/scale.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import scale_ranks
from speed_tables import about, markdown, ratio


def scale(result: dict[str, Any]) -> str:
    """Return the tables of ranks, of token stores and of engines."""
    return "\n\n".join((_ranks(result), _store(result["store"]), _engines(result["engines"])))


def _ranks(result: dict[str, Any]) -> str:
    rows = [
        (
            pairs,
            way,
            f"{1 / one['seconds']['median']:.2f}",
            ratio(one["times_as_fast_as"].get(scale_ranks.ONE)),
            ratio(one["times_as_fast_as"].get(scale_ranks.REFERENCE)),
            f"{one['peak_mb']:,.0f}",
        )
        for pairs, ways in result["ranks"]["pairs"].items()
        for way, one in ways.items()
        if "not_available" not in one
    ]
    text = (
        f"Training with MultipleNegativesRankingLoss in float32: one process of {scale_ranks.RANKS} threads, and "
        f"{scale_ranks.RANKS} ranks of one thread over gloo, which share the pairs of a step and gather their "
        f"embeddings (`benchmarks/run.py scale`, {about(result)}):"
    )
    header = ("pairs of a step", "", "steps/s", "x one process", "x sentence-transformers", "MB of a rank, peak")
    return f"{text}\n\n{markdown(header, rows)}"


def _store(result: dict[str, Any]) -> str:
    built = [
        (one["way"], f"{one['rows']:,}", f"{one['seconds']:.2f}", f"{one['times alone']:.2f}")
        for one in result["build"]
    ]
    trained = [
        (f"{one['rows']:,}", f"{one['MB of store']:,.0f}", f"{one['MB']:,.0f}", f"{one['seconds']:.1f}")
        for one in result["training"]
    ]
    return (
        "Building a token store of pairs of titles, beside tokenizing them in memory; the least of all rounds:\n\n"
        + markdown(("", "pairs", "seconds", "x tokenizing alone"), built)
        + f"\n\nTraining for {result['steps']} steps of 64 pairs on stores of made-up pairs; memory is anonymous "
        "memory (RssAnon) beyond that of the model, the most after any step; the time is that of the whole run:\n\n"
        + markdown(("pairs", "MB of the store", "MB of memory", "seconds"), trained)
    )


def _engines(result: dict[str, Any]) -> str:
    rows = [
        (
            engine,
            f"{result['texts'] / one['seconds']['median']:,.0f}",
            ratio(one["times_as_fast"]),
            f"{one['peak_mb']:,.0f}",
        )
        for engine, one in result["ways"].items()
        if "not_available" not in one
    ]
    text = (
        f"Embedding {result['texts']:,} titles in {result['dtype']} by `Embedder`, with all cores: engines of several "
        f"processes beside a plain loop over batches in one process; {result['timed']}:"
    )
    return f"{text}\n\n{markdown(('', 'rows/s', 'x the plain loop', 'MB of all processes, peak'), rows)}"


def draw_scale(result: dict[str, Any], path: Path) -> Path:
    """Draw the rates of ranks and engines, and memory against the rows of a store, in the format of the suffix."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    ranks, memory, engines = (figure.add_subplot(1, 3, number) for number in (1, 2, 3))
    pairs = result["ranks"]["pairs"]
    most = max(pairs, key=int)
    ways = {way: one for way, one in pairs[most].items() if "not_available" not in one}
    ranks.barh([*ways], [1 / one["seconds"]["median"] for one in ways.values()], color="#0072b2")
    ranks.set_title(f"steps per second, {most} pairs", fontsize=9)
    trained = result["store"]["training"]
    memory.plot([one["rows"] for one in trained], [one["MB"] for one in trained], marker="o", color="#0072b2")
    memory.set_xscale("log")
    memory.set_ylim(bottom=0)
    memory.set_title("MB of memory by pairs in a token store", fontsize=9)
    found = {way: one for way, one in result["engines"]["ways"].items() if "not_available" not in one}
    rates = [result["engines"]["texts"] / one["seconds"]["median"] for one in found.values()]
    engines.barh([*found], rates, color="#0072b2")
    engines.set_title("titles per second", fontsize=9)
    for axes in (ranks, memory, engines):
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    ranks.invert_yaxis()
    engines.invert_yaxis()
    machine = result["machine"]
    figure.supxlabel(f"{machine['threads']} threads of an {machine['cpu']}", fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    return path
