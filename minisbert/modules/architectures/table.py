"""The architectures by their `model_type`, and the tensors of their checkpoints by our names, and ours by theirs.

Some checkpoints hold in one tensor the rows of several of ours, such as queries, keys and values. Where the modules of
transformers do so too, the parts have names like "layers.0.attn.Wqkv (2 of 3).weight".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ...errors import ModelError
from . import bert
from .architecture import Architecture, EncoderConfig

if TYPE_CHECKING:
    from torch import Tensor

_OLD_NORMS = ((r"\bLayerNorm\.gamma$", "LayerNorm.weight"), (r"\bLayerNorm\.beta$", "LayerNorm.bias"))
_LAYER = re.compile(r"\.(\d+)\.")


def architecture_of(model_type: Any) -> Architecture | None:
    """Return the native architecture of a name, or None."""
    found = {
        **{"bert": bert.BERT, "roberta": bert.ROBERTA, "xlm-roberta": bert.ROBERTA, "camembert": bert.ROBERTA},
        **{"distilbert": bert.DISTILBERT, "mpnet": bert.MPNET, "electra": bert.ELECTRA},
    }.get(model_type if isinstance(model_type, str) else "")
    if found is not None:
        return found
    if model_type in ("modernbert", "nomic_bert", "gte"):
        from . import rotary  # the importing of which the BERT family is spared

        return {"modernbert": rotary.MODERN_BERT, "nomic_bert": rotary.NOMIC_BERT, "gte": rotary.GTE}[model_type]
    if model_type in ("qwen3", "gemma3_text"):
        from . import decoders

        return {"qwen3": decoders.QWEN3, "gemma3_text": decoders.GEMMA3}[model_type]
    return None


def current(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a configuration as transformers has it, that of code which came with a checkpoint rewritten.

    Raises:
        ModelError: it asks for something that the encoder does not compute.
    """
    if config.get("model_type") not in ("new", "nomic_bert"):
        return config
    from . import older_forms

    return older_forms.current(config)


def is_native(config: Mapping[str, Any]) -> bool:
    """Return True if the native encoder computes what this Hugging Face configuration describes."""
    found = architecture_of(config.get("model_type"))
    return found is not None and found.computes(config)


def known(config: Mapping[str, Any]) -> Architecture:
    """Return the architecture of a configuration of a native one.

    Raises:
        KeyError: it is no native one.
    """
    found = architecture_of(config["model_type"])
    if found is None:
        raise KeyError(config["model_type"])
    return found


def number_of_layers(config: Mapping[str, Any], layers: int) -> dict[str, int]:
    """Return the entries of a configuration for so many layers, by every name that it has for them."""
    return dict.fromkeys({known(config).key("num_hidden_layers"), *({"num_hidden_layers"} & config.keys())}, layers)


def encoder_config(config: Mapping[str, Any]) -> EncoderConfig:
    """Read a Hugging Face configuration of a native architecture.

    Raises:
        ModelError: a value is missing, of the wrong type, or contradicts another.
    """
    return known(config).read(config)


def word_name(config: Mapping[str, Any]) -> str:
    """Return the name of the table of word embeddings in checkpoints."""
    return f"{known(config).names['embeddings.word']}.weight"


def checkpoint_names(config: Mapping[str, Any], ours: Iterable[str]) -> dict[str, str]:
    """Our tensor names (with `.weight` or `.bias`) to those of transformers, or of parts of its tensors."""
    names = known(config).names
    result = {}
    for name in ours:
        stem, _, kind = name.rpartition(".")
        layer = _LAYER.search(stem)
        number = layer.group(1) if layer else ""
        pattern = stem.replace(f".{number}.", ".{}.") if number else stem
        result[name] = f"{names[pattern].format(number)}.{kind}"
    return result


def canonical(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """Rename the tensors of a checkpoint to the names that `checkpoint_names` gives, and split those that hold several.

    In a checkpoint with a head, names have the architecture as prefix ("bert."), and more if a wrapper around the model
    was saved ("0.auto_model."). The name of the word embeddings shows the prefix.

    Returns:
        The tensors, and all prefixes that were found: more than one, of which none is empty, if there are two models.
    """
    word = word_name(config)
    renamed = as_modules(config, tensors)
    prefixes = {name.removesuffix(word) for name in renamed if name.endswith(word)}
    prefix = min(prefixes, key=len, default="")
    unprefixed = {name.removeprefix(prefix): tensor for name, tensor in renamed.items()}
    return _split(unprefixed, {end: parts for end, parts in known(config).split.items() if _joined(parts)}), prefixes


def as_modules(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name and split the tensors of a checkpoint as the modules of transformers have them, with any prefix."""
    architecture = known(config)
    renamed = {_renamed(name, (*architecture.read_as, *_OLD_NORMS)): tensor for name, tensor in tensors.items()}
    return _split(renamed, {end: parts for end, parts in architecture.split.items() if not _joined(parts)})


def _joined(parts: Iterable[str]) -> bool:
    """Return True for the parts of what is one tensor in transformers, too."""
    return any(" (" in part for part in parts)


def _split(tensors: Mapping[str, Tensor], split: Mapping[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """Split the tensors whose names end in a key of `split`, by rows; the others are returned as they are.

    Raises:
        ModelError: there are rows left over.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stem, _, kind = name.rpartition(".")
        end = next((end for end in split if f".{stem}".endswith(f".{end}")), None)
        if end is None:
            found[name] = tensor
            continue
        parts = split[end]
        if tensor.ndim == 0 or tensor.shape[0] % len(parts):
            raise ModelError(
                f"got {name} of shape {tuple(tensor.shape)}; expected rows that {len(parts)} divides: copy the model "
                f"again"
            )
        start = stem.removesuffix(end)
        found.update(
            {f"{start}{part}.{kind}": rows for part, rows in zip(parts, tensor.chunk(len(parts)), strict=True)}
        )
    return found


def to_checkpoint(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our tensors by the names of a checkpoint, those joined that it has in one."""
    import torch

    architecture, names = known(config), checkpoint_names(config, state)
    found = {names[ours]: tensor for ours, tensor in state.items()}
    for end, parts in architecture.split.items():
        for name in [name for name in found if name.rpartition(".")[0].endswith(parts[0])]:
            stem, _, kind = name.rpartition(".")
            start = stem.removesuffix(parts[0])
            rows = [found.pop(f"{start}{part}.{kind}") for part in parts]
            found[f"{start}{end}.{kind}"] = torch.cat(rows)
    return {_renamed(name, architecture.written_as): tensor for name, tensor in found.items()}


def _renamed(name: str, rules: Iterable[tuple[str, str]]) -> str:
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name
