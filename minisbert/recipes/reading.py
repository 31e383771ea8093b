"""A recipe from a file: a recipe in YAML, or a model card."""

from __future__ import annotations

from pathlib import Path

from ..card.facts import CardFacts
from ..card.parsing import read_card
from ..errors import InputError
from ..storage.files import open_file
from .from_card import recipe_of
from .recipe import Recipe, parse_recipe

_LONGEST = 1_000_000  # bytes that are read of a file; as YAML so many are refused


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in a file: a model card (.md), a folder with one, or a recipe (.yaml).

    Raises:
        InputError: the file cannot be read, or is neither.
        ConfigError: the card is of a model that minisbert cannot train.
    """
    return read_source(path)[0]


def read_source(path: str | Path) -> tuple[Recipe, CardFacts | None]:
    """`read_recipe`, and the facts of the card if the file is one."""
    place = Path(path)
    file = place / "README.md" if place.is_dir() else place
    if file.suffix.lower() not in (".yaml", ".yml"):
        card = read_card(file)
        try:
            return recipe_of(card), card
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
    try:
        with open_file(file) as opened:
            content = opened.read(_LONGEST)
        text = content.decode("utf-8-sig", "strict" if len(content) < _LONGEST else "replace")
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8; expected a recipe: convert it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {file} ({reason}); expected a recipe: check its name") from None
    return parse_recipe(text, source=str(file)), None
