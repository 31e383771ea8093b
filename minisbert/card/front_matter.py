"""The YAML at the head of a card, in both directions."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any

from ..errors import InputError
from .facts import Emissions, FrontMatter, IndexedMetric, IndexedResult, ModelIndex, WidgetExample
from .safe_yaml import read_yaml

_NAMES = {"model_index": "model-index"}


def read_front_matter(text: str) -> FrontMatter:
    """The front matter from its YAML.

    Raises:
        InputError: it is not YAML, or not that of such a card.
    """
    wrong = "got a model card whose front matter {}; expected that of a sentence-transformers model"
    try:
        values = read_yaml(text)
    except ValueError as error:
        raise InputError(wrong.format(f"cannot be read as YAML ({error})")) from None
    if not isinstance(values, dict):
        raise InputError(wrong.format("is empty"))
    known = {_NAMES.get(place.name, place.name): place.name for place in fields(FrontMatter)}
    unknown = [str(name) for name in values if name not in known]
    if unknown:
        raise InputError(wrong.format(f"has the unknown fields {', '.join(unknown)}"))
    try:
        return FrontMatter(**{known[name]: _read(known[name], value) for name, value in values.items()})
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError):
        raise InputError(wrong.format("has a field of the wrong type")) from None


def _read(name: str, value: Any) -> Any:
    if name in ("language", "tags", "datasets", "metrics"):
        return (value,) if isinstance(value, str) else tuple(map(str, value))
    if name == "widget":
        return tuple(WidgetExample(str(w["source_sentence"]), tuple(map(str, w["sentences"]))) for w in value)
    if name == "model_index":
        return tuple(ModelIndex(model["name"], tuple(map(_result, model["results"]))) for model in value)
    if name == "co2_eq_emissions":
        return Emissions(**value)
    if not isinstance(value, str):
        raise TypeError(name)
    return value


def _result(values: Any) -> IndexedResult:
    task, dataset = values["task"], values["dataset"]
    metrics = tuple(
        IndexedMetric(one["type"], None if math.isnan(one["value"]) else one["value"], one["name"])
        for one in values["metrics"]
    )
    return IndexedResult(task["type"], task["name"], dataset["name"], dataset["type"], metrics)


def write_front_matter(facts: FrontMatter) -> str:
    """The YAML, with a line end.

    huggingface_hub's card data would sort the fields in another order than sentence-transformers writes them in.
    """
    import yaml

    values = {_NAMES.get(name, name): value for name, value in _write(facts).items() if value != []}
    return yaml.dump(values, sort_keys=False, allow_unicode=True)


def _write(value: Any) -> Any:
    """Lists and dictionaries of facts; what is None is left out."""
    if isinstance(value, tuple):
        return [_write(one) for one in value]
    if isinstance(value, IndexedMetric):
        return {"type": value.type, "value": math.nan if value.value is None else value.value, "name": value.name}
    if isinstance(value, IndexedResult):
        return {
            "task": {"type": value.task_type, "name": value.task_name},
            "dataset": {"name": value.dataset_name, "type": value.dataset_type},
            "metrics": _write(value.metrics),
        }
    if is_dataclass(value):
        written = {place.name: _write(getattr(value, place.name)) for place in fields(value)}
        return {name: one for name, one in written.items() if one is not None}
    return value
