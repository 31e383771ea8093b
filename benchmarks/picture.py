"""The charts: texts per second by length class and contender; memory and time of a step by batch size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COLOURS = {
    "minisbert": "#0072b2",
    "sentence-transformers": "#d55e00",
    "ONNX Runtime": "#999999",
    "OpenVINO": "#009e73",
    "CTranslate2": "#cc79a7",
}


def draw_encode(result: dict[str, Any], path: Path) -> Path:
    """Draw the chart into a file, in the format of its suffix."""
    from matplotlib.figure import Figure

    classes: dict[str, dict[str, Any]] = result["classes"]
    names = list(dict.fromkeys(name for one in classes.values() for name in one["contenders"]))
    names = [name for name in names if f"{name}, best batch" not in names]  # each in its best setting
    figure = Figure(figsize=(9, 0.25 * len(names) + 1), layout="constrained")
    for column, (kind, one) in enumerate(classes.items()):
        axes = figure.add_subplot(1, len(classes), column + 1)
        shown = {name: one["contenders"][name]["texts_per_second"] for name in names if name in one["contenders"]}
        colours = [next(colour for side, colour in COLOURS.items() if name.startswith(side)) for name in shown]
        bars = axes.barh(range(len(shown)), list(shown.values()), color=colours)
        axes.bar_label(bars, [f"{value:,.0f}" for value in shown.values()], fontsize=7, padding=2)
        axes.set_yticks(range(len(shown)), list(shown) if not column else [""] * len(shown), fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.25 * max(shown.values()))
        axes.set_xticks([])
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.set_title(f"{kind}, {one['mean_tokens']:.0f} tokens", fontsize=9)
    machine = result["machine"]
    where = f"{machine['threads']} threads of an {machine['cpu']}"
    figure.supxlabel(f"texts per second (longer bars are faster), {where}", fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    return path


def draw_cached(result: dict[str, Any], path: Path) -> Path:
    """Draw peak memory and time of a training step against the pairs in a batch, in the format of the suffix."""
    from matplotlib.figure import Figure

    batches: dict[str, dict[str, Any]] = result["batches"]
    colours = {"minisbert, plain": "#56b4e9", "minisbert, cached": "#0072b2"}
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    measures = {
        "peak memory of the process, GB": lambda one: one["peak"] / 1000,
        "seconds of a step": lambda one: one["seconds"]["median"],
    }
    for column, (title, measure) in enumerate(measures.items()):
        axes = figure.add_subplot(1, len(measures), column + 1)
        for way in dict.fromkeys(way for ways in batches.values() for way in ways):
            points = [
                (int(batch), measure(ways[way])) for batch, ways in batches.items() if "peak" in ways.get(way, {})
            ]
            axes.plot(
                *zip(*points, strict=True), marker="o", markersize=4, label=way, color=colours.get(way, "#d55e00")
            )
        sizes = [int(batch) for batch in batches]
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=8)
        axes.set_yscale("log" if column else "linear")
        axes.set_ylim(bottom=None if column else 0)
        axes.tick_params(axis="y", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("pairs in a batch", fontsize=8)
        if not column:
            axes.legend(fontsize=8, frameon=False)
    machine = result["machine"]
    figure.supxlabel(f"lower is better; {machine['threads']} threads of an {machine['cpu']}", fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    return path
