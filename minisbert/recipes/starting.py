"""The model that a recipe starts from."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..errors import ConfigError
from ..modules import Normalize, Pooling
from ..sentence_transformer import SentenceTransformer
from .recipe import Recipe


def starting_model(
    recipe: Recipe, *, base_model: str | Path | None = None, device: str | None = None
) -> SentenceTransformer:
    """The recipe's base model with the recipe's modules, maximum length and similarity.

    Raises:
        ModelError: the base model cannot be found or read.
        ConfigError: the recipe has modules with weights that the base model does not have.
    """
    name, revision = (base_model, None) if base_model else (recipe.base_model, recipe.base_model_revision)
    if name is None:
        raise ConfigError("got a recipe without a base model; expected one: say which with base_model= or --model")
    base = SentenceTransformer(name, revision=revision, device=device, dtype="float32")
    modules = _modules(recipe, base)
    model = base
    if modules != list(base):
        model = SentenceTransformer(
            modules=modules, device=device, prompts=base.prompts, default_prompt_name=base.default_prompt_name
        )
        model.base_model, model.base_model_revision = base.base_model, base.base_model_revision
    model.similarity_fn_name = recipe.similarity
    if recipe.max_seq_length is not None:
        model.max_seq_length = recipe.max_seq_length
    return model


def _modules(recipe: Recipe, base: SentenceTransformer) -> list[nn.Module]:
    """The base model's modules, with Pooling and Normalize as the recipe has them."""
    if recipe.modules[:1] != ("Transformer",) or recipe.modules.count("Transformer") > 1:
        raise ConfigError(f"got a recipe with the modules {list(recipe.modules)}; expected one Transformer, first")
    if "Pooling" not in recipe.modules:
        raise ConfigError(f"got a recipe with the modules {list(recipe.modules)}; expected Pooling among them")
    own: dict[str, list[nn.Module]] = {}
    for module in base:
        own.setdefault(type(module).__name__, []).append(module)
    modules: list[nn.Module] = []
    for kind in recipe.modules:
        found = own[kind].pop(0) if own.get(kind) else None
        if kind == "Pooling" and not (isinstance(found, Pooling) and found.pooling_mode == recipe.pooling_mode):
            modules.append(Pooling(base.transformer.embedding_dimension, recipe.pooling_mode))
        elif found is not None:
            modules.append(found)
        elif kind == "Normalize":
            modules.append(Normalize())
        else:
            expected = ", ".join(dict.fromkeys([*own, "Pooling", "Normalize"]))
            raise ConfigError(
                f"got a recipe with the module {kind}; expected one of {expected}, as often as the base model: start "
                f"from a base model that has it"
            )
    return modules
