"""Loss, learning rate and metric of a training run over its steps, as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .canvas import COLOURS, INK, MUTED, TEXT, new_figure, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHTS = {"loss": 330, "learning_rate": 210, "metric": 330}  # pixels
_FRAME = 50  # pixels, for the label of the steps
_LONGEST_NAME = 40  # of a metric, in characters: its values are printed beside it
_FEW = 30  # points, up to which they are drawn as dots too
_MANY = 100  # points of the loss, above which their mean is drawn over them


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
    figure = new_figure(sum(heights) + _FRAME)
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
            axes.axvline(best_step, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    last = list(panels.values())[-1]
    last.set_xlabel("step", fontsize=TEXT, color=INK)
    last.set_xlim(*_span(curves))
    last.xaxis.get_major_locator().set_params(nbins=8, integer=True)  # type: ignore[call-arg]
    last.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    save(figure, path)


def _curve(entries: Sequence[Mapping[str, float]], name: str) -> _Curve:
    """The finite values of that name, in order of steps."""
    points = sorted((one["step"], one[name]) for one in entries if math.isfinite(one.get(name, math.nan)))
    steps, values = np.array(points, np.float64).reshape(-1, 2).T
    return _Curve(steps, values)


def _span(curves: Mapping[str, _Curve]) -> tuple[float, float]:
    steps = np.concatenate([curve.steps for curve in curves.values()])
    margin = max(steps.max() * 0.02, 0.5)
    return -margin, steps.max() + margin


def _draw_loss(axes: Axes, curve: _Curve) -> None:
    if len(curve.steps) <= _MANY:
        style(axes, title="Training loss")
        _line(axes, curve, COLOURS[0])
        return
    window = len(curve.steps) // 40 * 2 + 1
    style(axes, title=f"Training loss, and its mean over {window} log entries")
    axes.plot(curve.steps, curve.values, color=COLOURS[0], linewidth=0.6, alpha=0.35)
    _line(axes, _Curve(curve.steps, _smoothed(curve.values, window)), COLOURS[0])
    # A few early spikes would flatten the rest of the curve.
    low, high = curve.values.min(), np.quantile(curve.values, 0.995)
    axes.set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low) or None)


def _smoothed(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """The moving average; at both ends over fewer values."""
    ones = np.ones(window)
    sums = np.convolve(values, ones, mode="same")
    means: NDArray[np.float64] = sums / np.convolve(np.ones(len(values)), ones, mode="same")
    return means


def _draw_rate(axes: Axes, curve: _Curve) -> None:
    style(axes, title="Learning rate")
    dots = "o" if len(curve.steps) <= _FEW else ""
    axes.plot(curve.steps, curve.values, color=COLOURS[2], linewidth=2, marker=dots, markersize=5)
    axes.set_ylim(0, curve.values.max() * 1.1 or 1)
    axes.yaxis.get_major_locator().set_params(nbins=3)  # type: ignore[call-arg]
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _draw_metric(axes: Axes, curve: _Curve, name: str, best_step: int | None) -> None:
    at = dict(zip(curve.steps, curve.values, strict=True))
    values = [f"before {at[0]:.4f}"] if 0 in at else []
    values += [f"best after {at[best_step]:.4f} (step {best_step:,})"] if best_step in at else []
    shown = name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"
    style(axes, title=f"{shown}: {', '.join(values)}" if values else shown)
    _line(axes, curve, COLOURS[1])
    if best_step is not None and best_step in at:
        axes.plot(best_step, at[best_step], "o", color=COLOURS[1], markersize=9, markeredgecolor="white")
    axes.margins(y=0.1)
    axes.yaxis.get_major_locator().set_params(nbins=5)  # type: ignore[call-arg]


def _line(axes: Axes, curve: _Curve, colour: str) -> None:
    dots = "o" if len(curve.steps) <= _FEW else ""
    axes.plot(curve.steps, curve.values, color=colour, linewidth=2, marker=dots, markersize=5)
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)  # a factor would be printed over the title
