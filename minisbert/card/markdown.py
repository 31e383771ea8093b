"""The Markdown of model cards: sections, links and code to read, tables in both directions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from ..errors import InputError

Row = tuple[str, ...]

_HEADING = re.compile(r"(#{1,4}) (.*)")
_RULE = re.compile(r"\|(:-+:?\|)+")
_BAR = re.compile(r"(?<!\\)\|")
_MOST_COLUMNS = 1000


@dataclass
class Section:
    """A heading, the lines under it, and its subsections."""

    level: int
    title: str
    lines: list[str] = field(default_factory=list)
    parts: list[Section] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The lines of the section itself."""
        return "\n".join(self.lines)


@dataclass(frozen=True)
class Document:
    """A card in parts.

    Attributes:
        front_matter: the YAML at its head.
        parts: the sections of the highest level.
        sections: the first section of each title, at any level.
    """

    front_matter: str
    parts: list[Section]
    sections: dict[str, Section]

    def text(self, title: str) -> str:
        """The lines of a section, "" if it is missing."""
        section = self.sections.get(title)
        return section.text if section else ""

    def parts_of(self, *titles: str) -> list[Section]:
        """The subsections of the first of these sections that exists."""
        return next((self.sections[title].parts for title in titles if title in self.sections), [])


def read_document(text: str) -> Document:
    """Split a card into front matter and sections; what is commented out is skipped.

    Raises:
        InputError: there is no front matter.
    """
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if lines[0] != "---" or "---" not in lines[1:]:
        raise InputError(
            "got a text without front matter; expected the README.md of a model saved by sentence-transformers or "
            "minisbert, or its text: pass another"
        )
    end = lines.index("---", 1)
    path = [Section(0, "")]
    document = Document("\n".join(lines[1:end]), path[0].parts, {})
    fenced = commented = False
    for line in lines[end + 1 :]:
        fenced ^= line.lstrip(" ").startswith("```")
        if not fenced and line in ("<!--", "-->"):
            commented = line == "<!--"
            continue
        heading = None if fenced else _HEADING.fullmatch(line)
        if commented:
            continue
        if heading is None:
            path[-1].lines.append(line)
            continue
        section = Section(len(heading[1]), heading[2])
        while path[-1].level >= section.level:
            path.pop()
        path[-1].parts.append(section)
        path.append(section)
        document.sections.setdefault(section.title, section)
    return document


def read_link(text: str) -> tuple[str, str] | None:
    """Title and target of a text that is a link."""
    title, middle, target = text.removeprefix("[").rpartition("](")
    return (title, target[:-1]) if text.startswith("[") and middle and target.endswith(")") else None


def read_code(text: str, language: str) -> str | None:
    """The first block of code in that language, without its margin."""
    lines = text.split("\n")
    last = {line: index for index, line in enumerate(lines) if line.endswith("```")}  # by margin and mark
    for index, line in enumerate(lines):
        margin, mark, rest = line.partition("```")
        if mark and rest == language and not margin.strip(" ") and last.get(f"{margin}```", 0) > index:
            end = lines.index(f"{margin}```", index + 1)
            return "\n".join(inner.removeprefix(margin) for inner in lines[index + 1 : end])
    return None


def between(text: str, opening: str, closing: str) -> list[str]:
    """The texts between two marks."""
    complete = text[: text.rfind(closing) + len(closing)]  # each opening mark has its closing one: linear time
    return re.findall(f"{re.escape(opening)}(.*?){re.escape(closing)}", complete, re.DOTALL)


# ---- tables, with each cell padded to the width of its column ------------------------------------------------------


def read_table(text: str) -> tuple[Row, list[Row]]:
    """Header and rows of the table in `text`; lines outside of it are ignored.

    The widths of the cells are those of the rule under the header, so that a cell may hold anything.

    Raises:
        InputError: there is no complete table.
    """
    lines = text.split("\n")
    rule = next((number for number, line in enumerate(lines) if number and _RULE.fullmatch(line.strip(" "))), None)
    broken = InputError("got a model card without an expected table; expected the card as it was generated")
    if rule is None:
        raise broken
    margin = len(lines[rule]) - len(lines[rule].lstrip(" "))
    widths = [len(part) for part in lines[rule].strip(" ").strip("|").split("|")]
    if len(widths) > _MOST_COLUMNS:
        raise broken
    header = _cells(lines[rule - 1][margin:], widths)
    rows = _rows(lines[rule + 1 :], margin, widths)
    if any(len(row) != len(widths) for row in (header, *rows)):
        raise broken
    return header, rows


def _rows(lines: Sequence[str], margin: int, widths: Sequence[int]) -> list[Row]:
    rows, width = [], sum(widths) + len(widths) + 1
    parts: list[str] = []
    length = bars = 0
    for line in lines:
        if not parts and not line[margin:].startswith("| "):
            break
        parts.append(line if parts else line[margin:])
        length += len(parts[-1]) + (len(parts) > 1)
        bars += len(_BAR.findall(parts[-1]))
        # A cell can hold a line break that was no "\n" when it was written; the row ends where its width is full.
        if length >= width or (parts[-1].endswith(" |") and bars == len(widths) + 1):
            rows.append(_cells("\n".join(parts), widths))
            parts, length, bars = [], 0, 0
    return rows


def _cells(line: str, widths: Sequence[int]) -> Row:
    ends = list(accumulate((width + 1 for width in widths), initial=0))
    if len(line) == ends[-1] + 1 and all(line[end] == "|" for end in ends):
        cells = [line[start + 2 : end] for start, end in pairwise(ends)]
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
