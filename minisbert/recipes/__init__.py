"""Recipes: how a model was made, read from its card or a file, and followed again on other rows."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .from_card import recipe_of
    from .recipe import Recipe, parse_recipe, read_recipe, write_recipe
    from .reproduce import Reproduction, prepare, starting_model

__all__ = [
    "Recipe",
    "Reproduction",
    "parse_recipe",
    "prepare",
    "read_recipe",
    "recipe_of",
    "starting_model",
    "write_recipe",
]

_HOMES = {"recipe_of": "from_card"} | dict.fromkeys(("Reproduction", "prepare", "starting_model"), "reproduce")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES.get(name, 'recipe')}", __name__), name)
