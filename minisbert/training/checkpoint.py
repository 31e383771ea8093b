"""Checkpoints: everything that is needed to go on as if nothing had happened."""

from __future__ import annotations

import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ConfigError, InputError
from ..storage.files import replacing_folder
from .config import TrainingConfig

if TYPE_CHECKING:
    from ..model import EmbeddingModel

_STATE = "training_state.pt"
_KEYS = {
    "step",
    "step_losses",
    "loss_total",
    "history",
    "config",
    "fingerprint",
    "optimizer",
    "scaler",
    "losses",
    "rng",
    "cuda_rng",
}
_MAY_CHANGE = ("log_every", "eval_every", "save_every", "save_total_limit")


@dataclass(frozen=True)
class Checkpoint:
    """A folder `checkpoint-N`: the model after N optimizer steps, and the state of the run."""

    folder: Path
    step: int

    @classmethod
    def all_in(cls, output_dir: Path) -> list[Checkpoint]:
        """The checkpoints of a run, oldest first."""
        found = []
        for folder in output_dir.glob("checkpoint-*"):
            match = re.fullmatch(r"checkpoint-(\d+)", folder.name)
            if match and (folder / _STATE).is_file():
                found.append(cls(folder, int(match.group(1))))
        return sorted(found, key=lambda checkpoint: checkpoint.step)

    @classmethod
    def save(cls, output_dir: Path, model: EmbeddingModel, *, step: int, state: dict[str, Any]) -> Checkpoint:
        """Write a checkpoint; it appears under its name only when it is complete."""
        folder = output_dir / f"checkpoint-{step}"
        with replacing_folder(folder) as temporary:
            model.save_pretrained(temporary, create_model_card=False)
            torch.save(state, temporary / _STATE)
        return cls(folder, step)

    def state(self) -> dict[str, Any]:
        """The saved state of the run.

        Raises:
            InputError: it cannot be read.
        """
        try:
            loaded: dict[str, Any] = torch.load(self.folder / _STATE, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds here
            reason = str(error).strip().split("\n")[0]
            raise InputError(f"{self.folder / _STATE} cannot be read ({reason}); resume from an earlier one") from error
        if not isinstance(loaded, dict) or loaded.keys() != _KEYS:
            raise InputError(f"{self.folder / _STATE} is no state of a training run; resume from an earlier one")
        return loaded


def prune(output_dir: Path, *, keep: int | None) -> None:
    """Remove all but the newest `keep` checkpoints."""
    if keep is not None:
        for checkpoint in Checkpoint.all_in(output_dir)[:-keep]:
            shutil.rmtree(checkpoint.folder)


def check_same_run(state: dict[str, Any], config: TrainingConfig, fingerprint: str, *, checkpoint: Path) -> None:
    """Refuse to resume with other settings or other data.

    Raises:
        ConfigError: something differs that decides the result; the message lists it.
    """
    saved, now = dict(state["config"]), asdict(config)
    changed = [
        f"{name} was {saved.get(name)!r} and is {value!r}"
        for name, value in now.items()
        if name not in _MAY_CHANGE and saved.get(name) != value
    ]
    if state["fingerprint"] != fingerprint:
        changed.append("the training rows or losses are others")
    if changed:
        raise ConfigError(
            f"cannot resume {checkpoint}: {'; '.join(changed)}; expected the same run: use the old settings and data, "
            f"or start anew in another folder"
        )
