"""The prompts that are put before the texts of each column in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import ConfigError

if TYPE_CHECKING:  # the settings are read before torch is needed
    from ..model import EmbeddingModel

Prompts: TypeAlias = str | Mapping[str, str | Mapping[str, str]]


def prompts_problem(value: Any) -> str | None:
    """Return what prompts must be, or None if `value` is that."""
    right = isinstance(value, str) or (
        isinstance(value, Mapping)
        and all(
            isinstance(name, str) and (isinstance(one, str) or _is_texts_by_name(one)) for name, one in value.items()
        )
    )
    return None if right else "a text, or texts by the names of columns, of data sets, or of both"


def column_prompts(prompts: Prompts | None, columns: Sequence[str], *, dataset: str) -> dict[str, str]:
    """Return the prompt of each column that has one.

    Args:
        prompts: the setting.
        columns: the text columns of a data set.
        dataset: its name; "" for the only one.
    """
    own = prompts.get(dataset, prompts) if isinstance(prompts, Mapping) and dataset else prompts
    found = dict.fromkeys(columns, own) if isinstance(own, str) else own or {}
    return {column: text for column in columns if isinstance(text := found.get(column), str) and text}


def check_prompts(prompts: Prompts | None, datasets: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Refuse prompts for columns or data sets that there are not.

    Args:
        prompts: the setting.
        datasets: name and text columns of each data set.

    Raises:
        ConfigError: a name is none of a data set or of a column.
    """
    if not isinstance(prompts, Mapping):
        return
    columns = list(dict.fromkeys(column for _, names in datasets for column in names))
    known = [*(name for name, _ in datasets if name), *columns]
    for name, one in prompts.items():
        if name not in known or (isinstance(one, Mapping) and name not in [data for data, _ in datasets]):
            raise ConfigError(f"got prompts for {name!r}; expected one of {', '.join(map(repr, known))}")
        inner = [column for data, names in datasets if data == name for column in names]
        for column in one if isinstance(one, Mapping) else ():
            if column not in inner:
                raise ConfigError(
                    f"got prompts for {column!r} of data set {name!r}; expected one of {', '.join(map(repr, inner))}"
                )


def leaves_out_prompts(model: EmbeddingModel) -> bool:
    """Return True if the tokens of prompts do not count in pooling."""
    return not all(getattr(module, "include_prompt", True) for module in model)


def _is_texts_by_name(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(part, str) for pair in value.items() for part in pair)
