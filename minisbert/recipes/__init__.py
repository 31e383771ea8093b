"""Recipes: how a model was made, read from its card or a file, and followed again on other rows.

    recipe = recipes.read_recipe("my-model")              # a folder with a card, a card, or a recipe file
    run = recipes.prepare(recipe, "rows.tsv")             # a Reproduction: the Trainer, its rows, what was assumed
    run.trainer.train()
    run.trainer.model.save_pretrained("my-next-model")

`recipe_of(facts)` is the recipe of a parsed card; `parse_recipe` and `write_recipe` read and write it as YAML;
`starting_model(recipe)` is the model it starts from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import attributes

if TYPE_CHECKING:
    from .from_card import recipe_of
    from .reading import read_recipe
    from .recipe import Recipe, parse_recipe, write_recipe
    from .reproduce import Reproduction, prepare
    from .starting import starting_model

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

_HOMES = {
    "Reproduction": "reproduce",
    "prepare": "reproduce",
    "read_recipe": "reading",
    "recipe_of": "from_card",
    "starting_model": "starting",
}

__getattr__, __dir__ = attributes(__name__, __all__, _HOMES, otherwise="recipe")
