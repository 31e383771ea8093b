"""Texts and bytes changed a little, at random."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

Mutation: TypeAlias = Callable[[bytes, random.Random], bytes]

_TOKENS = (
    b"many",
    b"-1",
    b"1e300",
    b"-1e300",
    b"1e999",
    b"nan",
    b"inf",
    b"0",
    b"9" * 5000,
    b"1,000",
    b"\xc2\xb2",  # a digit to isdigit, and to no parser of numbers
    "٣".encode(),
    b"0x10",
    b"1_0",
    b"True",
    b"None",
    b"null",
)
_MARKS = (
    b"```",
    b"```python",
    b"```json\n",
    b"---",
    b"|:---|",
    b"| ",
    b"<code>",
    b"</code>",
    b"<li>",
    b"<!--",
    b"-->",
    b"#### ",
    b"**",
    b"`",
    b"](",
    b"\\",
    b'"',
    b"'",
    b"&a",
    b"*a",
    b"!!python/object:os.system ",
    b"!!int ",
    b"\t",
    b",",
    b"\r",
    b"\r\n",
    b"\n",
    b"{",
    b"}",
    b"[",
    b":",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80",
    b"\\ud800",
    b"\\u0000",
    b"NaN",
    b"Infinity",
)


_LONG = 10_000_000  # bytes


def change_bytes(content: bytes, draw: random.Random) -> bytes:
    """One to three changes to bytes: cut, drop, repeat, flip, insert, another encoding, or nothing but noise."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        content = draw.choice(_BYTE_CHANGES)(content, draw)[:_LONG]
    return content


def change_lines(content: bytes, draw: random.Random) -> bytes:
    """One to three changes to a text: to its lines, its numbers, its marks, or its bytes."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        content = draw.choice(_LINE_CHANGES)(content, draw)[:_LONG]
    return content


def _place(content: bytes, draw: random.Random) -> int:
    return draw.randrange(len(content) + 1)


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: _place(content, draw)]


def _drop(content: bytes, draw: random.Random) -> bytes:
    start = _place(content, draw)
    return content[:start] + content[start + draw.choice((1, 2, 10, 100)) :]


def _repeat(content: bytes, draw: random.Random) -> bytes:
    start = _place(content, draw)
    part = content[start : start + draw.choice((1, 3, 10, 40, 200))]
    return content[:start] + part * _times(part, draw) + content[start:]


def _flip(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 4))):
        if changed:
            changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def _insert(content: bytes, draw: random.Random) -> bytes:
    place = _place(content, draw)
    part = draw.choice(_MARKS + _TOKENS)
    return content[:place] + part * _times(part, draw) + content[place:]


def _times(part: bytes, draw: random.Random) -> int:
    """Mostly once or a few times; now and then 100 kB, and rarely 10 MB."""
    luck = draw.random()
    if luck > 0.02:
        return draw.choice((1, 1, 1, 3, 20))
    return (100_000 if luck > 0.0005 else _LONG) // max(1, len(part))


def _another_encoding(content: bytes, draw: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(draw.choice(("utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "utf-8-sig")), "replace")


def _noise(content: bytes, draw: random.Random) -> bytes:
    return draw.randbytes(draw.choice((0, 1, 7, 8, 9, 100, 1000)))


def _number(content: bytes, draw: random.Random) -> bytes:
    """Another token where a number stands."""
    digits = [place for place, byte in enumerate(content[:100_000]) if 48 <= byte < 58]
    if not digits:
        return content
    start = end = draw.choice(digits)
    while end < len(content) and content[end] in b"0123456789.eE":
        end += 1
    return content[:start] + draw.choice(_TOKENS) + content[end:]


def _line(content: bytes, draw: random.Random) -> bytes:
    """A line dropped, doubled, moved or many times repeated."""
    lines = content.split(b"\n")
    place = draw.randrange(len(lines))
    kind = draw.randrange(5)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(place, lines[place])
    elif kind == 2:
        lines.insert(draw.randrange(len(lines)), lines.pop(place))
    elif kind == 3:
        lines[place:place] = [lines[place]] * draw.choice((10, 1000))
    else:
        lines[place] = draw.choice(lines)
    return b"\n".join(lines)


def _words(content: bytes, draw: random.Random) -> bytes:
    """Two words change places."""
    words = content.split(b" ")
    one, other = draw.randrange(len(words)), draw.randrange(len(words))
    words[one], words[other] = words[other], words[one]
    return b" ".join(words)


_BYTE_CHANGES: tuple[Mutation, ...] = (_cut, _drop, _repeat, _flip, _flip, _insert, _insert, _another_encoding, _noise)
_LINE_CHANGES: tuple[Mutation, ...] = (*(_number, _line, _line, _words, _insert, _insert) * 2, *_BYTE_CHANGES)
