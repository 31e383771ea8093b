"""The texts that a card shows: for the widget on the Hub, and in the example of use."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .facts import WidgetExample

_WIDGETS = 5
_LOOKED_AT = 1000
_TEXTS = 4


@dataclass(frozen=True)
class Examples:
    """Texts to show.

    Attributes:
        widget: for the Hub's widget.
        texts: up to four; none where there were too few rows.
    """

    widget: tuple[WidgetExample, ...] = ()
    texts: tuple[str, ...] = ()


def choose_examples(datasets: Mapping[str, Mapping[str, Sequence[str]]], *, seed: int) -> Examples:
    """Choose short rows, with the draws of the reference's version 6.2 for the same seed.

    Args:
        datasets: name to text columns.
        seed: decides the choice.
    """
    draw = random.Random(seed)  # noqa: S311
    widget: list[WidgetExample] = []
    shown: list[str] = []
    for name, wanted in Counter(draw.choices(list(datasets), k=_WIDGETS)).items():
        columns = list(datasets[name].values())
        size = len(columns[0])
        picked = draw.sample(range(size), k=min(_LOOKED_AT, size))
        rows = [[column[row] for column in columns] for row in picked]
        rows = sorted((row for row in rows if all(row)), key=lambda row: sum(map(len, row)))
        # The second text of a row is taken, because the first can be a query.
        fillers = [row[min(1, len(row) - 1)] for row in reversed(rows[wanted:])]
        for row in rows[:wanted]:
            texts = list(row)
            while len(texts) < _TEXTS and fillers:
                texts.append(fillers.pop())
            if len(texts) >= _TEXTS:
                others = draw.sample(texts[1:], k=len(texts) - 1)
                widget.append(WidgetExample(texts[0], tuple(others)))
                shown = texts[:_TEXTS]
    return Examples(tuple(widget), tuple(shown))
