"""The section "Pictures" of a card: images that lie beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote, unquote

from .facts import Picture, is_file_name

_PICTURE = re.compile(r"^!\[((?:\\.|[^\\\]\n])*)\]\((\S+?)\)$", re.MULTILINE)
_MARKUP = re.compile(r"[\\\[\]`*_<>&!$]")
_ESCAPED = re.compile(r"\\(.)|&#(10|13);", re.DOTALL)


def read_pictures(text: str) -> tuple[Picture, ...]:
    """The pictures of the section; an image that is no file beside the card, such as one on the web, is none."""
    found = ((_plain(title), unquote(target)) for title, target in _PICTURE.findall(text))
    return tuple(Picture(title, file) for title, file in found if is_file_name(file))


def write_pictures(pictures: Sequence[Picture]) -> str:
    """The whole section."""
    images = (f"![{_escaped(picture.title)}]({quote(picture.file, safe='')})" for picture in pictures)
    return "\n\n".join(["### Pictures", *images])


def _escaped(title: str) -> str:
    escaped = _MARKUP.sub(r"\\\g<0>", title)
    return escaped.replace("\n", "&#10;").replace("\r", "&#13;")  # an image stands on one line


def _plain(title: str) -> str:
    return _ESCAPED.sub(lambda found: found[1] or chr(int(found[2])), title)
