"""A recipe for a model, in Python and in YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Literal, TypeAlias, get_args

from ..card.safe_yaml import read_yaml
from ..errors import InputError

_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
TrainedWith: TypeAlias = Literal["fit", "trainer"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The base model, data, loss and settings that a model was made with.

    Attributes:
        base_model: folder, or name on the Hub, of the model to start from; None if unknown.
        base_model_revision: its commit, if known.
        modules: kinds of the modules in order, such as ("Transformer", "Pooling", "Normalize").
        pooling_mode: modes of Pooling; empty if the model has none.
        max_seq_length: longest text in tokens, or None for the base model's.
        similarity: "cosine", "dot", "euclidean" or "manhattan".
        loss: class name.
        loss_parameters: as the loss states them.
        trained_with: "fit", whose cards do not state learning rate, decay and warm-up, or "trainer".
        settings: fields of a `TrainingConfig` that differ from its defaults.
        evaluator: class name of the evaluator, or None.
        rows: number of training rows, or None.
        texts: names of the text columns, in order; empty if unknown.
        label: name of the label column, or None.
        not_followed: settings of the card that minisbert does not support, as printed.
    """

    base_model: str | None = None
    base_model_revision: str | None = None
    modules: tuple[str, ...] = ("Transformer", "Pooling", "Normalize")
    pooling_mode: tuple[str, ...] = ("mean",)
    max_seq_length: int | None = None
    similarity: str = "cosine"
    loss: str
    loss_parameters: Mapping[str, Any] = field(default_factory=dict)
    trained_with: TrainedWith = "trainer"
    settings: Mapping[str, Any] = field(default_factory=dict)
    evaluator: str | None = None
    rows: int | None = None
    texts: tuple[str, ...] = ()
    label: str | None = None
    not_followed: tuple[str, ...] = ()


def write_recipe(recipe: Recipe) -> str:
    """The recipe as YAML; empty fields are left out, except modules, pooling and similarity."""
    import yaml

    values = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(recipe).items()
        if name in ("modules", "pooling_mode", "similarity") or value not in (None, (), {})
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


def parse_recipe(text: str, *, source: str = "the recipe") -> Recipe:
    """A recipe from its YAML.

    Raises:
        InputError: it is not a recipe: a field is missing, unknown or of the wrong type.
    """
    try:
        values = read_yaml(text)
    except ValueError as error:
        raise InputError(f"{source}: {error}; expected a recipe in YAML: fix it") from None
    known = {place.name: place for place in fields(Recipe)}
    if not isinstance(values, dict):
        raise InputError(f"{source}: got a {type(values).__name__}; expected the fields {', '.join(known)}")
    for name in values:
        if name not in tuple(known):  # a key of YAML need not be hashable
            raise InputError(f"{source}: got the field {name!r}; expected one of {', '.join(known)}")
    for name, place in known.items():
        if name not in values and place.default is MISSING and place.default_factory is MISSING:
            raise InputError(f"{source} has no field {name!r}; expected it: add it")
    return Recipe(**{name: _checked(name, value, source) for name, value in values.items()})


def _checked(name: str, value: Any, source: str) -> Any:
    """The value of a field.

    Raises:
        InputError: it has the wrong type.
    """
    text = isinstance(value, str) and bool(value)
    if name in ("modules", "pooling_mode", "texts", "not_followed"):
        right, wanted = isinstance(value, list) and all(isinstance(one, str) for one in value), "a list of names"
        value = tuple(value) if right else value
    elif name in ("loss_parameters", "settings"):
        right, wanted = isinstance(value, dict) and all(isinstance(key, str) for key in value), "values by name"
        value = {key: _number(one) for key, one in value.items()} if right else value
    elif name in ("max_seq_length", "rows"):
        right, wanted = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63, "a number above 0"
    elif name == "trained_with":
        right, wanted = text and value in get_args(TrainedWith), f"one of {', '.join(get_args(TrainedWith))}"
    else:
        right, wanted = text, "a text (in quotes)"
    if not right:
        raise InputError(f"{source}: got {value!r} for {name}; expected {wanted}")
    return value


def _number(value: Any) -> Any:
    """A value of YAML, which reads 2e-5 as a text and 2.0e-5 as a number: here both are numbers."""
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value
