"""What two cards have in common where only their prose differs."""

from __future__ import annotations

import re
from collections.abc import Iterator


def _visible(card: str) -> str:
    """The body without code and without what is hidden in comments."""
    body = card.split("\n---\n", 1)[1]
    body = re.sub(r"^( *)```.*?^\1```$", "", body, flags=re.M | re.S)
    return re.sub(r"^<!--$.*?^-->$", "", body, flags=re.M | re.S)


def headings(card: str) -> list[str]:
    body = re.sub(r"^( *)```.*?^\1```$", "", card.split("\n---\n", 1)[1], flags=re.M | re.S)
    return re.findall(r"^#{1,4} .*$", body, flags=re.M)


def skeleton(card: str) -> Iterator[str]:
    """The lines that are no prose: fields, lists, tables. Version 4 does not escape a bar in a cell."""
    for line in _visible(card).split("\n"):
        if line.startswith(("* The ", "- [")):
            continue
        if re.match(r" *(\||- |\* |<)", line):
            yield re.sub(r"[ -]+", " ", line.replace("\\|", "|")).rstrip()
