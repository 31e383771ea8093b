"""Recipes: how a model was made, read from its card or a file, and followed again on other rows; models out of others.

    recipe = recipes.read_recipe("my-model")              # a folder with a card, a card, or a recipe file
    run = recipes.prepare(recipe, "rows.tsv")             # a Reproduction: the Trainer, its rows, what was assumed
    run.trainer.train()
    run.model.save_pretrained("my-next-model")

`recipe_of(facts)` is the recipe of a parsed card; `parse_recipe` and `write_recipe` read and write it as YAML;
`starting_model(recipe)` is the model it starts from.

`merge(["a", "b"], "merged", method="slerp")` merges the weights of models. `distill("a", texts, layers=[0, 2, 4])`
trains a smaller model to embed texts as another one does.
"""

from .distillation import Distillation, Distilled, TeacherEvaluator, distill, prepare_distillation
from .merge_methods import MergeMethod
from .merging import merge
from .recipe import Recipe, parse_recipe, read_recipe, recipe_of, write_recipe
from .reproduce import Reproduction, prepare, starting_model

__all__ = [
    "Distillation",
    "Distilled",
    "MergeMethod",
    "Recipe",
    "Reproduction",
    "TeacherEvaluator",
    "distill",
    "merge",
    "parse_recipe",
    "prepare",
    "prepare_distillation",
    "read_recipe",
    "recipe_of",
    "starting_model",
    "write_recipe",
]
