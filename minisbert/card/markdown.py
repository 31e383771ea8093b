"""A card cut into its sections."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from ..errors import InputError

_HEADING = re.compile(r"(#{1,4}) (.*)")
_TWICE_DECODED_MARK = "🤗".encode().decode("cp1252")


@dataclass
class Section:
    """A heading, the lines under it, and the sections within."""

    level: int
    title: str
    lines: list[str] = field(default_factory=list)
    parts: list[Section] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The lines of the section itself."""
        return "\n".join(self.lines)

    def part(self, title: str) -> Section | None:
        """The first section of that title, at any depth."""
        return self._titles.get(title)

    @cached_property
    def _titles(self) -> dict[str, Section]:
        found: dict[str, Section] = {}
        for section in self.all():
            found.setdefault(section.title, section)
        return found

    def all(self) -> Iterator[Section]:
        """Every section within, in order."""
        for part in self.parts:
            yield part
            yield from part.all()


def split_card(text: str) -> tuple[str, Section]:
    """The YAML of the front matter, and the body as a tree.

    Raises:
        InputError: there is no front matter.
    """
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if lines[0] != "---" or "---" not in lines[1:]:
        raise InputError(
            "got a text without front matter; expected the README.md of a model saved by sentence-transformers or "
            "minisbert: pass its text"
        )
    end = lines.index("---", 1)
    root = Section(0, "")
    path = [root]
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
    return "\n".join(lines[1:end]), root


def fenced_code(text: str, language: str) -> str | None:
    """The first block of code in that language, without its margin."""
    lines = text.split("\n")
    last = {line: place for place, line in enumerate(lines) if line.endswith("```")}  # by margin and mark
    for place, line in enumerate(lines):
        margin, mark, rest = line.partition("```")
        if mark and rest == language and not margin.strip(" ") and last.get(f"{margin}```", 0) > place:
            end = lines.index(f"{margin}```", place + 1)
            return "\n".join(inner.removeprefix(margin) for inner in lines[place + 1 : end])
    return None


def between(text: str, opening: str, closing: str) -> list[str]:
    """What stands between each two marks."""
    found = []
    start = text.find(opening)
    while start >= 0 and (end := text.find(closing, start + len(opening))) >= 0:
        found.append(text[start + len(opening) : end])
        start = text.find(opening, end + len(closing))
    return found


def links(text: str) -> list[tuple[str, str]]:
    """Titles and targets of the links that stand in a list, one on a line."""
    found = []
    for line in text.split("\n"):
        title, middle, rest = line.removeprefix("- [").partition("](")
        target, end, _ = rest.partition(")")
        if line.startswith("- [") and title and middle and end and not re.search(r"\s", target):
            found.append((title, target))
    return found


def repair(text: str) -> str:
    """A card whose UTF-8 was read as cp1252 on its way, as it was before.

    Only a card that shows the sign of it is changed, and of that the lines that can be taken back.
    """
    return "\n".join(map(_repaired, text.split("\n"))) if _TWICE_DECODED_MARK in text else text


def _repaired(line: str) -> str:
    try:
        return line.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return line
