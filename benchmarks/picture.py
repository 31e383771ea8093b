"""A picture of `run.py encode`: texts per second by length class and contender."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#d55e00", "#e69f00", "#999999", "#cccccc")
REFERENCE = "sentence-transformers"


def draw(result: dict[str, Any], path: Path) -> Path:
    """Write the picture; its kind is that of the ending."""
    from matplotlib.figure import Figure

    classes: dict[str, dict[str, Any]] = result["classes"]
    names = list(dict.fromkeys(name for one in classes.values() for name in one["contenders"]))
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for place, (kind, one) in enumerate(classes.items()):
        axes = figure.add_subplot(1, len(classes), place + 1)
        shown = {name: one["contenders"][name]["texts_per_second"] for name in names if name in one["contenders"]}
        colours = [COLOURS[names.index(name) % len(COLOURS)] for name in shown]
        bars = axes.barh(range(len(shown)), list(shown.values()), color=colours)
        axes.bar_label(bars, [f"{value:,.0f}" for value in shown.values()], fontsize=7, padding=2)
        axes.set_yticks(range(len(shown)), list(shown) if not place else [""] * len(shown), fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.25 * max(shown.values()))
        axes.set_xticks([])
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.set_title(f"{kind}, {one['mean_tokens']:.0f} tokens", fontsize=9)
    machine = result["machine"]
    figure.supxlabel(f"texts per second, {machine['threads']} threads of an {machine['cpu']}", fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    return path
