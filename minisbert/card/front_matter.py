"""The YAML at the head of a card, in both directions, and untrusted YAML: plain values only, of limited size."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .facts import Emissions, FrontMatter, IndexedMetric, IndexedResult, ModelIndex, WidgetExample

if TYPE_CHECKING:
    import yaml

_LONGEST = 500_000  # characters; front matters and recipes are far shorter, and reading so many takes seconds
_MOST_VALUES = 100_000
_LONGEST_NUMBER = 1000  # digits; Python refuses to print much longer ones
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
    if name == "base_model" and isinstance(value, list):
        return tuple(map(str, value))
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


# ---- any YAML -------------------------------------------------------------------------------------------------------


def read_yaml(text: str) -> Any:
    """The values of a YAML document.

    Raises:
        ValueError: it is not YAML, or too large; the message says why, in one line.
    """
    import yaml

    if len(text) > _LONGEST:
        raise ValueError(f"{len(text):,} characters of YAML, at most {_LONGEST:,} are read")
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        if node is None:
            return None
        # A few nested aliases can expand to more values than fit in memory.
        if _size(node, {}) > _MOST_VALUES:
            raise ValueError(f"more than {_MOST_VALUES:,} values, its aliases written out")
        return yaml.constructor.SafeConstructor().construct_document(node)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError):  # PyYAML's own code on `!!bool many`
        raise ValueError("a value is not what its tag says") from None


def _size(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Count the values in `node`, aliases expanded.

    Raises:
        ValueError: an alias contains itself, or a number is too long.
    """
    import yaml

    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise ValueError("an alias contains itself")
        return size
    if node.tag.endswith(":int") and len(node.value) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(node.value):,} digits")
    known[id(node)] = None  # until its parts are counted
    parts: list[yaml.Node] = [] if isinstance(node, yaml.ScalarNode) else node.value
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    size = known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return size
