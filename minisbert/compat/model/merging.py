"""Merge models as the reference's `merge` does, without mergekit."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...errors import ConfigError, ModelError, nearest, shown
from ...sentence_transformer import SentenceTransformer as OurSentenceTransformer

if TYPE_CHECKING:
    from typing_extensions import Self

_PARAMETERS = {"weight": "weights", "density": "density", "t": "t"}  # names of mergekit, and those of `recipes.merge`
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class MergingMethods(OurSentenceTransformer):
    """`merge`."""

    @classmethod
    def merge(
        cls,
        models: Sequence[str | Path | Self],
        method: str = "linear",
        *,
        base_model: str | Path | Self | None = None,
        parameters: dict[str, Any] | None = None,
        dtype: str | torch.dtype | None = torch.float32,
        out_dtype: str | torch.dtype | None = None,
        device: str | torch.device = "cpu",
        batch_options: Any = None,
        **load_kwargs: Any,
    ) -> Self:
        """Merge models into a new one; see `minisbert.recipes.merge`, which saves it without loading all of them.

        Args:
            models: folders, names or models of one architecture and tokenizer.
            method: "linear", "slerp", "task_arithmetic" or "ties".
            base_model: the one that the others were trained from; it may be one of them.
            parameters: `weight` and `density`, each one number, one for each model but the base, or by the index of
                the model, and `t`.
            dtype: only float32, in which tensors are merged.
            out_dtype: of the merged weights; by default float32.
            device: where the merged model runs.
            batch_options: makes no difference: tensors are merged one by one.
            load_kwargs: arguments to load the models with.

        Returns:
            The model, with a card that names those it was made from.

        Raises:
            ConfigError: the method or a parameter is not one of these, or has an impossible value.
            InputError: there are too few models.
            ModelError: a model cannot be read, or differs from the first.
        """
        from ...recipes.merging import merge, same_model

        if _float(dtype, "dtype") not in (None, torch.float32):
            raise ConfigError(f"got dtype={shown(dtype)}; expected float32, in which tensors are merged")
        wanted = _float(out_dtype, "out_dtype") or torch.float32
        several = models if isinstance(models, Sequence) and not isinstance(models, str) else [models]
        index = 0 if method == "slerp" else None  # of the base
        if base_model is not None:
            index = next((i for i, one in enumerate(several) if same_model(one, base_model)), len(several))
        inputs = [*several, base_model] if index == len(several) else list(several)
        if load_kwargs and not any(isinstance(one, (str, Path)) for one in inputs):
            raise ConfigError(
                f"got {', '.join(load_kwargs)} with loaded models; expected folders or names to load by them"
            )
        others = [one for one in range(len(several)) if one != index]
        numbers = _numbers({} if parameters is None else parameters, others)
        loaded = [cls._in_float32(one, load_kwargs) for one in inputs]
        base = None if base_model is None or index is None else loaded[index]
        names = [_name(one, number) for number, one in enumerate(inputs, 1)]
        known: Any = method  # `merge` refuses others
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "merged"
            merge(loaded[: len(several)], folder, method=known, base=base, names=names, **numbers)
            merged = cls(str(folder), device=device)
        merged.base_model = merged.base_model_revision = None
        merged = merged.to(wanted).eval()
        if not all(one.isfinite().all() for one in merged.parameters()):
            raise ModelError(f"got weights that {wanted} cannot hold; expected finite ones: choose another out_dtype")
        return merged

    @classmethod
    def _in_float32(cls, model: Any, load_kwargs: Mapping[str, Any]) -> Any:
        """Load a model that is a folder or a name; one in another dtype is copied."""
        if isinstance(model, (str, Path)):
            return cls(str(model), **load_kwargs).float()
        if isinstance(model, OurSentenceTransformer) and model.dtype != torch.float32:
            return copy.deepcopy(model).float()
        return model


def _name(model: Any, number: int) -> str:
    """Return what the card calls a model."""
    return Path(model).name if isinstance(model, (str, Path)) and str(model) else f"model {number}"


def _float(dtype: Any, name: str) -> torch.dtype | None:
    found = getattr(torch, dtype, dtype) if isinstance(dtype, str) else dtype
    if found is not None and not any(found is one for one in _FLOATS):
        raise ConfigError(f"got {name}={shown(dtype)}; expected float16, bfloat16, float32, float64 or None")
    return found  # type: ignore[return-value]  # one of these


def _numbers(parameters: Mapping[str, Any], others: Sequence[int]) -> dict[str, Any]:
    """Return parameters by the names of `recipes.merge`, with lists for those by index.

    Args:
        parameters: by the names of mergekit.
        others: indices of the models, without the base.
    """
    if not isinstance(parameters, Mapping):
        raise ConfigError(f"got parameters={shown(parameters)}; expected numbers by name, such as {{'weight': 0.5}}")
    found = {}
    for name, value in parameters.items():
        if name not in _PARAMETERS:
            near = nearest(str(name), list(_PARAMETERS), otherwise=list(_PARAMETERS))
            raise ConfigError(f"got the parameter {name!r}; expected {near}: others of mergekit have their defaults")
        if isinstance(value, Mapping):
            if missing := [index for index in others if index not in value]:
                raise ConfigError(f"got {name}={shown(value)}; expected a number for model {missing[0]}, too: add it")
            value = [value[index] for index in others]
        found[_PARAMETERS[name]] = value.tolist() if hasattr(value, "tolist") else value  # arrays and tensors
    return found
