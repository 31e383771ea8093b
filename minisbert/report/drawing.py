"""Pictures of a training run: its curves over the steps, and the similarities before and after it, as PNG files.

Only matplotlib's objects are used, never pyplot, and no setting of matplotlib is changed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, InputError
from ..storage.files import write_error
from .pairs import Groups, PairScores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 1200  # pixels: the width of a card on the Hub
_DPI = 150
_INK, _MUTED, _GRID = "#222222", "#666666", "#e4e4e4"
_COLOURS = ("#0072b2", "#d55e00", "#009e73")  # of Okabe and Ito: safe for colour-blind readers
_TEXT, _SMALL = 10.0, 9.0  # points
_HEIGHTS = {"loss": 330, "learning_rate": 210, "metric": 330}  # pixels
_FRAME = 50  # pixels, for the label of the steps
_LONGEST_NAME = 40  # of a metric, in characters: its values are printed beside it
_FEW = 30  # points, up to which they are drawn as dots too
_MANY = 100  # points of the loss, above which their mean is drawn over them
_MOST_OUTLINES = 3  # groups in one panel; more get a row each
_MOST_BINS = 30


def require_matplotlib() -> None:
    """Fail before the work if nothing could be drawn after it.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ConfigError(
            'got report without matplotlib; expected it installed: pip install "minisbert[report]"'
        ) from None


# ---- loss, learning rate and metric over the steps ------------------------------------------------------------------


class _Curve(NamedTuple):
    steps: NDArray[np.float64]
    values: NDArray[np.float64]


def draw_training(
    entries: Sequence[Mapping[str, float]],
    path: str | Path,
    *,
    primary: str | None = None,
    best_step: int | None = None,
) -> None:
    """Draw loss, learning rate and the primary metric over the steps, those that were logged, into a PNG.

    Args:
        entries: of the run's history; an evaluation before training has step 0.
        path: the file to write, 1200 pixels wide.
        primary: name of the metric, without "eval_"; by default the first in the entries.
        best_step: the step to mark as the best.

    Raises:
        InputError: there is nothing to draw, or the file cannot be written.
        ConfigError: matplotlib is not installed.
    """
    metric = f"eval_{primary}" if primary else next((key for one in entries for key in one if key[:5] == "eval_"), "")
    found = {
        "loss": _curve(entries, "loss"),
        "learning_rate": _curve(entries, "learning_rate"),
        "metric": _curve(entries, metric),
    }
    curves = {name: curve for name, curve in found.items() if len(curve.steps)}
    if not curves:
        raise InputError(
            f"got {len(entries)} log entries without a finite loss or metric; expected values to draw: log more often"
        )
    heights = [_HEIGHTS[name] for name in curves]
    figure = _new_figure(sum(heights) + _FRAME)
    grid = figure.subplots(len(curves), 1, sharex=True, squeeze=False, height_ratios=heights)
    panels: dict[str, Axes] = dict(zip(curves, grid[:, 0], strict=True))
    if "loss" in panels:
        _draw_loss(panels["loss"], curves["loss"])
    if "learning_rate" in panels:
        _draw_rate(panels["learning_rate"], curves["learning_rate"])
    if "metric" in panels:
        _draw_metric(panels["metric"], curves["metric"], metric.removeprefix("eval_"), best_step)
    for axes in panels.values():
        if best_step is not None:
            axes.axvline(best_step, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    last = list(panels.values())[-1]
    last.set_xlabel("step", fontsize=_TEXT, color=_INK)
    steps = np.concatenate([curve.steps for curve in curves.values()])
    margin = max(steps.max() * 0.02, 0.5)
    last.set_xlim(-margin, steps.max() + margin)
    last.xaxis.get_major_locator().set_params(nbins=8, integer=True)  # type: ignore[call-arg]
    last.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    _save(figure, path)


def _curve(entries: Sequence[Mapping[str, float]], name: str) -> _Curve:
    """The finite values of that name, in order of steps."""
    points = sorted((one["step"], one[name]) for one in entries if math.isfinite(one.get(name, math.nan)))
    steps, values = np.array(points, np.float64).reshape(-1, 2).T
    return _Curve(steps, values)


def _draw_loss(axes: Axes, curve: _Curve) -> None:
    if len(curve.steps) <= _MANY:
        _style(axes, title="Training loss")
        _line(axes, curve, _COLOURS[0])
        return
    window = len(curve.steps) // 40 * 2 + 1
    _style(axes, title=f"Training loss, and its mean over {window} log entries")
    axes.plot(curve.steps, curve.values, color=_COLOURS[0], linewidth=0.6, alpha=0.35)
    sums, counts = (np.convolve(one, np.ones(window), "same") for one in (curve.values, np.ones(len(curve.values))))
    _line(axes, _Curve(curve.steps, sums / counts), _COLOURS[0])  # at both ends the mean of fewer values
    # A few early spikes would flatten the rest of the curve.
    low, high = curve.values.min(), np.quantile(curve.values, 0.995)
    axes.set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low) or None)


def _draw_rate(axes: Axes, curve: _Curve) -> None:
    _style(axes, title="Learning rate")
    _line(axes, curve, _COLOURS[2])
    axes.set_ylim(0, curve.values.max() * 1.1 or 1)
    axes.yaxis.get_major_locator().set_params(nbins=3)  # type: ignore[call-arg]
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _draw_metric(axes: Axes, curve: _Curve, name: str, best_step: int | None) -> None:
    at = dict(zip(curve.steps, curve.values, strict=True))
    values = [f"before {at[0]:.4f}"] if 0 in at else []
    values += [f"best after {at[best_step]:.4f} (step {best_step:,})"] if best_step in at else []
    shown = name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"
    _style(axes, title=f"{shown}: {', '.join(values)}" if values else shown)
    _line(axes, curve, _COLOURS[1])
    if best_step is not None and best_step in at:
        axes.plot(best_step, at[best_step], "o", color=_COLOURS[1], markersize=9, markeredgecolor="white")
    axes.margins(y=0.1)
    axes.yaxis.get_major_locator().set_params(nbins=5)  # type: ignore[call-arg]


def _line(axes: Axes, curve: _Curve, colour: str) -> None:
    dots = "o" if len(curve.steps) <= _FEW else ""
    axes.plot(curve.steps, curve.values, color=colour, linewidth=2, marker=dots, markersize=5)
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)  # a factor would be printed over the title


# ---- similarities before and after training -------------------------------------------------------------------------


def draw_similarity(before: PairScores, after: PairScores, path: str | Path) -> None:
    """Draw the similarities before and after training side by side: a PNG, 1200 pixels wide.

    Up to three groups are outlined in one plot; more, such as ranges of labels, get a row each.

    Raises:
        InputError: the two are not of the same groups, no similarity is finite, or the file cannot be written.
        ConfigError: matplotlib is not installed.
    """
    if list(before.groups) != list(after.groups):
        raise InputError(
            f"got the groups {list(before.groups)} before and {list(after.groups)} after; expected the same groups: "
            f"measure the same rows"
        )
    finite = [{name: one[np.isfinite(one)] for name, one in scores.groups.items()} for scores in (before, after)]
    values = np.concatenate([group for groups in finite for group in groups.values()])
    if not len(values):
        raise InputError("got no finite similarity; expected values to draw: check the model's embeddings")
    outlines = len(before.groups) <= _MOST_OUTLINES
    figure = _new_figure(560 if outlines else 190 + 90 * len(before.groups))
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    edges = _bins(values, least=min(len(group) for group in before.groups.values()))
    margin = (edges[-1] - edges[0]) * 0.02
    label = "similarity" if outlines else "similarity (dots: medians; own scale for each row)"
    for axes, groups, title in zip((left, right), finite, ("before training", "after training"), strict=True):
        _style(axes, title=title, grid="both" if outlines else "x")
        (_draw_outlines if outlines else _draw_rows)(axes, groups, edges)
        axes.set_xlim(edges[0] - margin, edges[-1] + margin)
        axes.xaxis.get_major_locator().set_params(nbins=6)
        axes.set_xlabel(label, fontsize=_TEXT, color=_INK)
    figure.suptitle(_plain(after.title), fontsize=_TEXT + 1, color=_INK)
    if outlines:
        left.set_ylabel("share of the group", fontsize=_TEXT, color=_INK)
        left.set_ylim(bottom=0)
        left.yaxis.get_major_locator().set_params(nbins=6)
        left.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g}%")
        handles, _ = left.get_legend_handles_labels()
        names = [f"{name} ({len(group):,})" for name, group in after.groups.items()]
        figure.legend(
            handles, names, loc="outside lower center", ncols=len(names), frameon=False, fontsize=_TEXT, labelcolor=_INK
        )
    else:
        left.set_ylim(-0.2, len(after.groups))
        left.set_ylabel("label", fontsize=_TEXT, color=_INK)
        left.set_yticks(range(len(after.groups)), [f"{name}\n({len(g):,})" for name, g in after.groups.items()])
    _save(figure, path)


def _bins(values: NDArray[np.float64], *, least: int) -> NDArray[np.float64]:
    """Edges of bins over all values, fewer if the smallest group would leave most of them empty."""
    low, high = values.min(), values.max()
    if high - low < 1e-6 * max(1, abs(low)):
        low, high = low - 0.5, high + 0.5
    count = min(_MOST_BINS, max(10, round(1.3 * math.sqrt(least))))
    return np.linspace(low, high, count + 1)


def _draw_outlines(axes: Axes, groups: Groups, edges: NDArray[np.float64]) -> None:
    for colour, (name, values) in zip(_COLOURS, groups.items(), strict=False):
        counts, _ = np.histogram(values, edges)
        axes.stairs(counts / max(1, len(values)), edges, fill=True, color=colour, alpha=0.18)
        axes.stairs(counts / max(1, len(values)), edges, color=colour, linewidth=2, label=name)


def _draw_rows(axes: Axes, groups: Groups, edges: NDArray[np.float64]) -> None:
    for row, values in enumerate(groups.values()):
        counts, _ = np.histogram(values, edges)
        heights = row + 0.85 * counts / max(1, counts.max())
        axes.stairs(heights, edges, baseline=row, fill=True, color=_COLOURS[0], alpha=0.3)
        axes.stairs(heights, edges, baseline=row, color=_COLOURS[0], linewidth=1.5)
        if len(values):
            axes.plot(np.median(values), row, "o", color=_COLOURS[1], markersize=8, markeredgecolor="white", zorder=3)
    axes.tick_params(axis="y", length=0, labelsize=_SMALL, labelcolor=_INK, color=_MUTED)


# ---- figures of one size and style ----------------------------------------------------------------------------------


def _new_figure(height: int) -> Figure:
    """An empty white figure of `_WIDTH` x `height` pixels."""
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(_WIDTH / _DPI, height / _DPI), dpi=_DPI, facecolor="white", layout="constrained")


def _style(axes: Axes, *, title: str, grid: Literal["both", "x"] = "both") -> None:
    """Style axes: a title at the left, a light grid, no frame but the two axes."""
    axes.set_facecolor("white")
    axes.set_title(_plain(title), loc="left", fontsize=_TEXT, color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_MUTED)
    axes.tick_params(colors=_MUTED, labelcolor=_INK, labelsize=_SMALL, direction="out", length=3)
    axes.grid(visible=False)
    axes.grid(visible=True, axis=grid, color=_GRID, linewidth=0.8, linestyle="-")
    axes.set_axisbelow(True)


def _plain(text: str, width: int = 90) -> str:
    """A text on one line of at most `width` characters, without formulas for matplotlib."""
    line = " ".join(text.split())
    line = line if len(line) <= width else f"{line[: width - 1]}…"
    return line.replace("$", r"\$")


def _save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # a letter that the font lacks is drawn as a box
            figure.savefig(path, format="png", dpi=_DPI, facecolor="white", bbox_inches=None)
    except OSError as error:
        raise write_error(Path(path), error) from None
