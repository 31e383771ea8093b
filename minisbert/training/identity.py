"""What decides the result of a run, beside its settings: data, losses, and the model it starts from, as digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..losses import Loss
from ..model import EmbeddingModel
from .dataset import TrainingDataset

_OF_NO_EFFECT = ("_name_or_path", "dtype", "torch_dtype", "transformers_version")


@dataclass(frozen=True)
class Identity:
    """Digests in hexadecimal.

    Attributes:
        data: of rows, as tokens, and losses.
        modules: of the model's settings.
        weights: of the weights that the run started from.
    """

    data: str
    modules: str
    weights: str

    @classmethod
    def of(
        cls, model: EmbeddingModel, datasets: Sequence[TrainingDataset], losses: Sequence[Loss], *, several: bool
    ) -> Identity:
        """Of a run that starts now."""
        parts = [dataset.fingerprint() for dataset in datasets]
        parts += [f"{type(loss).__name__} {loss.get_config_dict()} {_settings(loss)}" for loss in losses]
        config = {name: value for name, value in model.transformer.config.items() if name not in _OF_NO_EFFECT}
        modules = [f"{type(module).__name__}({module.extra_repr()})" for module in model]
        return cls(
            data=_digest(f"{several} {' '.join(parts)}"),
            modules=_digest(json.dumps([config, modules], sort_keys=True, default=str)),
            weights=digest_of_weights(model.state_dict()),
        )


def digest_of_weights(tensors: Mapping[str, Tensor]) -> str:
    """Digest of tensors with their names, the same on every device."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _settings(loss: Loss) -> list[str]:
    """The plain values that the modules of a loss hold, such as `reduction` and `delta`."""
    return [
        f"{name} {type(module).__name__} {key}={value!r}"
        for name, module in loss.named_modules()
        for key, value in sorted(vars(module).items())
        if isinstance(value, (bool, int, float, str)) and not key.startswith("_") and key != "training"
    ]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
