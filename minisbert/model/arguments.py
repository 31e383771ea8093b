"""The reference's arguments for loading a model: those that minisbert honours, or that change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ..errors import ConfigError, ModelError, nearest, shown
from ..storage.dialects import LOADING_GROUPS, LOADING_KEYS, read_dtype
from ..storage.layout import ModelLayout

_DTYPE = frozenset({"dtype", "torch_dtype"})  # its two names


def check_loading(
    *,
    backend: str = "torch",
    model_kwargs: Mapping[str, Any] | None = None,
    processor_kwargs: Mapping[str, Any] | None = None,
    tokenizer_kwargs: Mapping[str, Any] | None = None,
    config_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the arguments that are given, with dtypes by name, as a saved model has them.

    Args:
        backend: only "torch".
        model_kwargs: `dtype` or `torch_dtype`, and what makes no difference to embeddings.
        processor_kwargs: entries in place of those of tokenizer_config.json.
        tokenizer_kwargs: older name of `processor_kwargs`.
        config_kwargs: entries in place of those of config.json.

    Raises:
        ConfigError: an argument asks for something that minisbert does not do.
    """
    if backend != "torch":
        raise ConfigError(f"got backend={shown(backend)}; expected 'torch', in which minisbert computes: leave it out")
    if processor_kwargs and tokenizer_kwargs:
        raise ConfigError("got both processor_kwargs and tokenizer_kwargs; expected one of them: they are the same")
    groups = {
        "model_kwargs": model_kwargs,
        "processor_kwargs": processor_kwargs or tokenizer_kwargs,
        "config_kwargs": config_kwargs,
    }
    given: dict[str, dict[str, Any]] = {}
    for group, values in groups.items():
        if values is not None and not isinstance(values, Mapping):
            raise ConfigError(f"got {group}={shown(values)}; expected a dictionary: pass names and values")
        known = LOADING_KEYS.get(group)
        for name in values or {}:
            if known is not None and name not in known:
                raise ConfigError(
                    f"got {name!r} in {group}; expected one that minisbert knows, such as "
                    f"{nearest(str(name), known, otherwise=sorted(known))}: leave it out"
                )
        if values:
            given[group] = {name: _plain(name, value) for name, value in values.items()}
    return given


def with_loading(layout: ModelLayout, given: Mapping[str, Mapping[str, Any]]) -> ModelLayout:
    """Put the arguments that `check_loading` returned before those that a model was saved with."""
    if not given:
        return layout
    first, *others = layout.modules
    return replace(layout, modules=(replace(first, config=merge_loading(first.config, given)), *others))


def merge_loading(saved: Mapping[str, Any], given: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Put arguments before those in the content of a sentence_bert_config.json."""
    config = dict(saved)
    for group, values in given.items():
        before = next((config.pop(key) for key in LOADING_GROUPS[group] if key in config), None) or {}
        if not _DTYPE.isdisjoint(values):
            before = {name: value for name, value in before.items() if name not in _DTYPE}
        config[group] = {**before, **values}
    return config


def _plain(name: str, value: Any) -> Any:
    if name not in _DTYPE:
        return value
    value = str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else value
    try:
        return read_dtype(value, name)
    except ModelError as error:
        raise ConfigError(str(error)) from None
