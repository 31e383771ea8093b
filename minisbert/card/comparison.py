"""Where two cards state something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from .facts import CardFacts


def differences(one: CardFacts, other: CardFacts, *, tolerance: float = 1e-6) -> tuple[str, ...]:
    """The facts that differ, as "path: value of one | value of the other".

    Args:
        one: a card's facts.
        other: another's.
        tolerance: by how much numbers may differ.
    """
    return tuple(_differences(one, other, "", tolerance))


def _differences(one: Any, other: Any, path: str, tolerance: float) -> Iterator[str]:
    if is_dataclass(one) and type(one) is type(other):
        for place in fields(one):
            name = f"{path}.{place.name}".removeprefix(".")
            yield from _differences(getattr(one, place.name), getattr(other, place.name), name, tolerance)
    elif isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            yield from _differences(one.get(key), other.get(key), f"{path}[{key}]", tolerance)
    elif isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)) and len(one) == len(other):
        for index, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            yield from _differences(mine, theirs, f"{path}[{index}]", tolerance)
    elif isinstance(one, float) and isinstance(other, float):
        if not abs(one - other) <= tolerance and not (one != one and other != other):
            yield f"{path}: {one} | {other}"
    elif one != other:
        yield f"{path}: {one!r} | {other!r}"
