"""Markdown tables as cards have them: each cell padded to the width of its column."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate

from ..errors import InputError

Row = tuple[str, ...]
_RULE = re.compile(r"\|(:-+:?\|)+")
_MOST_COLUMNS = 1000
_BAR = re.compile(r"(?<!\\)\|")


def read_table(text: str) -> tuple[Row, list[Row]]:
    """Header and rows of the table in `text`; lines outside of it are not looked at.

    The rule under the header tells how wide the cells are, so that a cell may hold anything.

    Raises:
        InputError: there is no whole table.
    """
    lines = text.split("\n")
    rules = [number for number, line in enumerate(lines) if _RULE.fullmatch(line.strip(" ")) and number]
    broken = InputError("got a model card without an expected table; expected the card as it was generated")
    if not rules:
        raise broken
    rule = lines[rules[0]]
    margin = len(rule) - len(rule.lstrip(" "))
    widths = [len(part) for part in rule.strip(" ").strip("|").split("|")]
    if len(widths) > _MOST_COLUMNS:
        raise broken
    header = _cells(lines[rules[0] - 1][margin:], widths)
    rows = _rows(lines[rules[0] + 1 :], margin, widths)
    if any(len(row) != len(widths) for row in (header, *rows)):
        raise broken
    return header, rows


def _rows(lines: Sequence[str], margin: int, widths: Sequence[int]) -> list[Row]:
    rows, whole = [], sum(widths) + len(widths) + 1
    parts: list[str] = []
    length = bars = 0
    for line in lines:
        if not parts and not line[margin:].startswith("| "):
            break
        parts.append(line if parts else line[margin:])
        length += len(parts[-1]) + (len(parts) > 1)
        bars += len(_BAR.findall(parts[-1]))
        # A cell can hold a line break that was no "\n" when it was written; the row ends where its width is full.
        if length >= whole or (parts[-1].endswith(" |") and bars == len(widths) + 1):
            rows.append(_cells("\n".join(parts), widths))
            parts, length, bars = [], 0, 0
    return rows


def _cells(line: str, widths: Sequence[int]) -> Row:
    ends = list(accumulate(width + 1 for width in widths))
    if len(line) == ends[-1] + 1 and all(line[end] == "|" for end in [0, *ends]):
        cells = [line[start + 2 : end] for start, end in zip([0, *ends], ends, strict=False)]
    else:
        cells = [cell[1:] for cell in _BAR.split(line)[1:-1]]
    return tuple(cell.rstrip(" ") for cell in cells)


def write_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, centred: bool = False, margin: str = ""
) -> str:
    """The table, each line after `margin`, without a line end."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = "".join(f"|:{'-' * width}{':' if centred else '-'}" for width in widths) + "|"
    lines = ["".join(f"| {cell:<{width}} " for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)]
    return "\n".join(margin + line for line in [f"{lines[0]}|", rule, *(f"{line}|" for line in lines[1:])])


def number(text: str) -> int | float | str:
    """The number that prints as `text`, or `text` where there is none."""
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if str(value) == text and value == value:
            return value
    return text


def number_text(value: object) -> str:
    """A value as tables show it: a float with more than four decimals is cut to four."""
    text = str(value)
    return f"{value:.4f}" if isinstance(value, float) and len(text.partition(".")[2]) > 4 else text
