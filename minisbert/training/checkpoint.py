"""Checkpoints: everything that is needed to go on as if nothing had happened."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, InputError
from ..model import EmbeddingModel
from ..storage.files import (
    read_json_object,
    remove_folder,
    remove_leftovers,
    replacing_folder,
    write_error,
    write_json,
)
from ..storage.weights import check_archive
from .config import TrainingConfig
from .identity import Identity, digest_of_weights

_STATE = "training_state.pt"
_MANIFEST = "checkpoint.json"
_KEYS = {
    "step",
    "step_losses",
    "loss_total",
    "history",
    "config",
    "identity",
    "optimizer",
    "scaler",
    "losses",
    "rng",
    "cuda_rng",
}
_MAY_CHANGE = ("log_every", "save_every", "save_total_limit")
_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Checkpoint:
    """A folder `checkpoint-N`: the model after N optimizer steps, and the state of the run.

    Its `checkpoint.json` has the size and the SHA-256 of every other file.
    """

    folder: Path
    step: int

    @classmethod
    def all_in(cls, output_dir: Path) -> list[Checkpoint]:
        """The checkpoints of a run, whole or not, oldest first."""
        found = []
        for folder in output_dir.glob("checkpoint-*"):
            match = re.fullmatch(r"checkpoint-(\d+)", folder.name)
            if match and folder.is_dir():
                found.append(cls(folder, int(match.group(1))))
        return sorted(found, key=lambda checkpoint: checkpoint.step)

    @classmethod
    def save(cls, output_dir: Path, model: EmbeddingModel, *, step: int, state: dict[str, Any]) -> Checkpoint:
        """Write a checkpoint; it appears under its name only when it is complete and on the disk.

        Raises:
            InputError: it cannot be written.
        """
        folder = output_dir / f"checkpoint-{step}"
        with replacing_folder(folder, others_stay=False) as temporary:
            model.write_into(temporary)
            _write_state(temporary / _STATE, state)
            seal(temporary)
        return cls(folder, step)

    def damage(self) -> str | None:
        """What is wrong with a file, or None if all are as they were saved."""
        try:
            files = read_json_object(self.folder / _MANIFEST)["files"]
            there = _files(self.folder)  # and no file elsewhere, whatever the list says
            for name in {_STATE, "modules.json", *files}:
                path = self.folder / name
                if name not in files:
                    return f"{self.folder / _MANIFEST} is missing or damaged"
                if name not in there:
                    return f"{path} is missing"
                if _described(path) != files[name]:
                    return f"{path} is damaged: it is not what was saved"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            where = getattr(error, "filename", None) or self.folder / _MANIFEST
            return f"{where} is missing or damaged"
        return None

    def state(self) -> dict[str, Any]:
        """The saved state of the run.

        Raises:
            InputError: it cannot be read, or any file of the checkpoint is damaged.
        """
        if damage := self.damage():
            raise InputError(f"{damage}; resume from an earlier checkpoint")
        try:
            with (self.folder / _STATE).open("rb") as file:
                check_archive(file)
            loaded: dict[str, Any] = torch.load(self.folder / _STATE, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds here
            reason = str(error).strip().split("\n")[0]
            raise InputError(f"{self.folder / _STATE} cannot be read ({reason}); resume from an earlier one") from error
        if not isinstance(loaded, dict) or loaded.keys() != _KEYS:
            raise InputError(f"{self.folder / _STATE} is no state of a training run; resume from an earlier one")
        if loaded["step"] != self.step:
            raise InputError(
                f"{self.folder} holds the state after step {loaded['step']!r}; another name than it had; resume "
                f"from an earlier checkpoint"
            )
        return loaded


def newest_whole(output_dir: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint of a run that is not damaged, and what is wrong with those that are newer."""
    damages: list[str] = []
    for checkpoint in reversed(Checkpoint.all_in(output_dir)):
        damage = checkpoint.damage()
        if damage is None:
            return checkpoint, damages
        damages.append(damage)
    return None, damages


def prune(output_dir: Path, *, newest: Checkpoint, keep: int) -> None:
    """Of a checkpoint and those before it leave only `keep`, once it is known that it can be read.

    Raises:
        InputError: it cannot; nothing has been removed.
    """
    older = [checkpoint for checkpoint in Checkpoint.all_in(output_dir) if checkpoint.step < newest.step]
    surplus = older[: len(older) - (keep - 1)] if len(older) >= keep else []
    if surplus and (damage := newest.damage()):
        raise InputError(f"{damage}; the disk may be failing: resume from {older[-1].folder} in another place")
    for checkpoint in surplus:
        try:
            remove_folder(checkpoint.folder)
        except OSError as error:
            raise write_error(output_dir, error) from error


def clean_up(output_dir: Path) -> None:
    """Remove what a run left half written when its process was ended."""
    remove_leftovers(output_dir, r"checkpoint-\d+|best|train_log\.jsonl")
    remove_leftovers(output_dir.parent, re.escape(output_dir.name))


def seal(folder: Path) -> None:
    """Write down what the files in a checkpoint's folder are."""
    files = {name: _described(path) for name, path in _files(folder).items() if name != _MANIFEST}
    write_json(folder / _MANIFEST, {"files": files})


def weights_in(folder: Path, model: EmbeddingModel) -> dict[str, Tensor]:
    """The weights saved in `folder`, for `model`.

    Raises:
        ConfigError: they are of another model.
    """
    weights: dict[str, Tensor] = EmbeddingModel(folder, device="cpu").state_dict()
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    if shapes != {name: tensor.shape for name, tensor in model.state_dict().items()}:
        raise ConfigError(f"the weights in {folder} are of another model; expected those of the one that is trained")
    return weights


def check_same_run(
    state: dict[str, Any], config: TrainingConfig, identity: Identity, weights: dict[str, Tensor], *, checkpoint: Path
) -> None:
    """Refuse to resume with other settings, other data or another model.

    Args:
        state: of the checkpoint.
        config: now.
        identity: now; the model may also be the one in the checkpoint.
        weights: of the checkpoint.
        checkpoint: its folder.

    Raises:
        ConfigError: something differs that decides the result; the message lists it.
    """
    saved, now = dict(state["config"]), asdict(config)
    may_change = _MAY_CHANGE if config.keep_best else (*_MAY_CHANGE, "eval_every", "eval_each_epoch")
    changed = [
        f"{name} was {saved.get(name)!r} and is {value!r}"
        for name, value in now.items()
        if name not in may_change and saved.get(name) != value
    ]
    before = Identity(**state["identity"])
    if before.data != identity.data:
        changed.append("the training rows, their order, or the losses differ")
    if before.modules != identity.modules:
        changed.append("the settings of the model are others")
    if identity.weights != before.weights and identity.weights != digest_of_weights(weights):
        changed.append("the model to start from has other weights")
    if changed:
        raise ConfigError(
            f"cannot resume {checkpoint}: {'; '.join(changed)}; expected the same run: use the old settings, data and "
            f"model, or start anew in another folder"
        )


def _files(folder: Path) -> dict[str, Path]:
    """The files in a folder and within, by their names there; no links."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path for path in found}


def _write_state(path: Path, state: dict[str, Any]) -> None:
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch stumbles over what it could not write
                raise error.__context__ from None
            raise


def _described(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}
