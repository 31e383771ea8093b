"""Figures of one size and style, written as PNG files.

Only matplotlib's objects are used, never pyplot, and no setting of matplotlib is changed.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 1200  # pixels: the width of a card on the Hub
DPI = 150
INK, MUTED, GRID = "#222222", "#666666", "#e4e4e4"
COLOURS = ("#0072b2", "#d55e00", "#009e73")  # of Okabe and Ito: safe for colour-blind readers
TEXT, SMALL = 10.0, 9.0  # points


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


def new_figure(height: int) -> Figure:
    """An empty white figure of `WIDTH` x `height` pixels."""
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white", layout="constrained")


def style(axes: Axes, *, title: str, grid: str = "both") -> None:
    """Style axes: a title at the left, a light grid along "x", "y" or "both", no frame but the two axes."""
    axes.set_facecolor("white")
    axes.set_title(plain(title), loc="left", fontsize=TEXT, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=SMALL, direction="out", length=3)
    axes.grid(visible=False)
    if grid != "x":
        axes.grid(visible=True, axis="y", color=GRID, linewidth=0.8, linestyle="-")
    if grid != "y":
        axes.grid(visible=True, axis="x", color=GRID, linewidth=0.8, linestyle="-")
    axes.set_axisbelow(True)


def plain(text: str, width: int = 90) -> str:
    """A text on one line of at most `width` characters, without formulas for matplotlib."""
    line = " ".join(text.split())
    line = line if len(line) <= width else f"{line[: width - 1]}…"
    return line.replace("$", r"\$")


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # a letter that the font lacks is drawn as a box
            figure.savefig(path, format="png", dpi=DPI, facecolor="white", bbox_inches=None)
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror}); expected a folder that can be written: choose another"
        ) from None
