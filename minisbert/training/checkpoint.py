"""Checkpoints: write, verify and prune them, tell which run they are of, and lock the folder of a run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..distributed import gather_objects, rank, world_size
from ..errors import ConfigError, InputError, first_line
from ..losses import Loss
from ..model import EmbeddingModel
from ..modules.lora import is_adapter
from ..modules.persistence import read_module
from ..storage.files import (
    read_json_object,
    remove_folder,
    remove_leftovers,
    replacing_folder,
    size_and_digest,
    write_error,
    write_json,
)
from ..storage.layout import read_layout
from ..storage.weights import check_archive, tensors_digest
from .config import TrainingConfig
from .dataset import TrainingDataset
from .selection import decides

_STATE = "training_state.pt"
_MANIFEST = "checkpoint.json"
_KEYS = {"step", "config", "identity", "step_losses", "loss_total", "history"}
_KEYS |= {"optimizer", "scaler", "losses", "rng", "cuda_rng", "python_rng"}
_LATER_KEYS = {"step_terms", "place", "other_processes"}  # which earlier checkpoints do not have
_MAY_CHANGE = ("log_every", "save_every", "save_total_limit")
_OF_PROCESSES = ("batch_size", "gradient_accumulation")  # which may change with the number of processes
_OF_EVALUATIONS = ("eval_every", "eval_each_epoch", "eval_batch_size", "metric_for_best_model", "greater_is_better")
_NO_EFFECT = ("_name_or_path", "dtype", "torch_dtype", "transformers_version")  # of a model's settings
_LOCK = ".lock"
_SEEDS = 1_000_000_007  # distance between the seeds of two processes
_ENCODER = "0.auto_model."


@dataclass(frozen=True)
class Checkpoint:
    """A folder `checkpoint-N`: the model after N optimizer steps, and the state of the run.

    Its `checkpoint.json` has the size and the SHA-256 of every other file.
    """

    folder: Path
    step: int

    @classmethod
    def all_in(cls, output_dir: Path) -> list[Checkpoint]:
        """Find the checkpoints of a run, valid or not, oldest first."""
        folders = [folder for folder in output_dir.glob("checkpoint-*") if folder.is_dir()]
        steps = [(re.fullmatch(r"checkpoint-(\d+)", folder.name), folder) for folder in folders]
        found = [cls(folder, int(step[1])) for step, folder in steps if step]
        return sorted(found, key=lambda checkpoint: checkpoint.step)

    @classmethod
    def save(
        cls, output_dir: Path, model: EmbeddingModel, *, step: int, state: dict[str, Any], keep: int | None = None
    ) -> Checkpoint:
        """Write a checkpoint; it appears under its name only when it is complete and on the disk.

        Args:
            output_dir: the folder of the run.
            model: the model.
            step: optimizer steps done.
            state: all else that changes during the run.
            keep: remove all but so many of this and the older checkpoints; by default none.

        Raises:
            InputError: it cannot be written.
        """
        folder = output_dir / f"checkpoint-{step}"
        with replacing_folder(folder, others_stay=False) as temporary:
            model.write_into(temporary)
            _write_state(temporary / _STATE, state)
            seal(temporary)
        checkpoint = cls(folder, step)
        if keep is not None:
            prune(output_dir, newest=checkpoint, keep=keep)
        return checkpoint

    def damage(self) -> str | None:
        """Describe the first file that is not as it was saved, or return None if all are."""
        try:
            files = read_json_object(self.folder / _MANIFEST)["files"]
            present = _files(self.folder)  # and no file elsewhere, whatever the manifest says
            for name in {_STATE, "modules.json", *files}:
                path = self.folder / name
                if name not in files:
                    return f"{self.folder / _MANIFEST} is missing or damaged"
                if name not in present:
                    return f"{path} is missing"
                if size_and_digest(path) != files[name]:
                    return f"{path} is damaged: it is not what was saved"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{getattr(error, 'filename', None) or self.folder / _MANIFEST} is missing or damaged"
        return None

    def state(self) -> dict[str, Any]:
        """Read the saved state of the run.

        Raises:
            InputError: it cannot be read, or any file of the checkpoint is damaged.
        """
        if damage := self.damage():
            raise InputError(f"{damage}; resume from an earlier checkpoint")
        try:
            with (self.folder / _STATE).open("rb") as file:
                check_archive(file)
            state: dict[str, Any] = torch.load(self.folder / _STATE, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types here
            raise InputError(
                f"{self.folder / _STATE} cannot be read ({first_line(error)}); resume from an earlier checkpoint"
            ) from error
        if not isinstance(state, dict) or {*state} - _LATER_KEYS != _KEYS:
            raise InputError(
                f"{self.folder / _STATE} is not the state of a training run; resume from an earlier checkpoint"
            )
        if state["step"] != self.step:
            raise InputError(
                f"{self.folder} holds the state after step {state['step']!r}, so it has been renamed; give it its old "
                f"name, or resume from an earlier checkpoint"
            )
        return state


def newest_valid(output_dir: Path) -> tuple[Checkpoint | None, list[str]]:
    """Find the newest checkpoint of a run that is not damaged, and the damages of those that are newer."""
    damages: list[str] = []
    for checkpoint in reversed(Checkpoint.all_in(output_dir)):
        damage = checkpoint.damage()
        if damage is None:
            return checkpoint, damages
        damages.append(damage)
    return None, damages


def prune(output_dir: Path, *, newest: Checkpoint, keep: int) -> None:
    """Keep only `keep` of a checkpoint and those before it, after verifying that `newest` can be read.

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
    """Remove partly written files that a run left behind when its process was killed."""
    remove_leftovers(output_dir, r"checkpoint-\d+|best|train_log\.jsonl")
    remove_leftovers(output_dir.parent, re.escape(output_dir.name))


def seal(folder: Path) -> None:
    """Write the sizes and digests of the files in a checkpoint's folder to its `checkpoint.json`."""
    files = {name: size_and_digest(path) for name, path in _files(folder).items() if name != _MANIFEST}
    write_json(folder / _MANIFEST, {"files": files})


def saved_weights(folder: Path, model: EmbeddingModel) -> dict[str, Tensor]:
    """Read the weights saved in `folder`, for `model`.

    Raises:
        ConfigError: they are of another model.
    """
    if model.transformer.adapter is not None:
        return _weights_with_adapter(folder, model)
    weights: dict[str, Tensor] = EmbeddingModel(folder, device="cpu").state_dict()
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    if shapes != {name: tensor.shape for name, tensor in own_tensors(model).items()}:
        raise ConfigError(f"the weights in {folder} are of another model; expected those of the model that is trained")
    return weights


def own_tensors(model: EmbeddingModel) -> dict[str, Tensor]:
    """Return the tensors of a model by our own names of them, which a subclass may show by others."""
    encoder = model.transformer.encoder.state_dict()
    rest = {
        f"{name}.{key}": one
        for name, part in list(model.named_children())[1:]
        for key, one in part.state_dict().items()
    }
    return {**{f"{_ENCODER}{name}": tensor for name, tensor in encoder.items()}, **rest}


def _weights_with_adapter(folder: Path, model: EmbeddingModel) -> dict[str, Tensor]:
    """Return the saved adapter and modules after the encoder, with the frozen base that the model has."""
    weights = own_tensors(model)
    saved = {f"{_ENCODER}{name}": tensor for name, tensor in model.transformer.adapter_state(folder).items()}
    for number, spec in enumerate(read_layout(folder).modules[1:], start=1):
        saved |= {f"{number}.{name}": tensor for name, tensor in read_module(spec).state_dict().items()}
    wrong = [name for name, tensor in saved.items() if name not in weights or weights[name].shape != tensor.shape]
    if wrong or {name for name in weights if is_adapter(name) or not name.startswith("0.")} != set(saved):
        raise ConfigError(f"the weights in {folder} are of another model; expected those of the model that is trained")
    return {**weights, **saved}


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from generators with this seed for a block of code: torch's, and Python's, which losses sample with.

    Afterwards they are where they were before. Each process of a run draws other numbers.
    """
    seed += rank() * _SEEDS
    before = random.getstate()
    random.seed(seed)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(before)


def random_state(device: torch.device) -> dict[str, Tensor | None]:
    """Return the states of torch's generators, of the CPU and of a CUDA device, and of Python's."""
    on_gpu = device.type == "cuda"
    return {
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(device) if on_gpu else None,
        "python_rng": torch.tensor(random.getstate()[1]),
    }


def random_states(device: torch.device) -> dict[str, Any]:
    """Return what `random_state` does of the first process of a run, and in a list that of each other one."""
    first, *others = gather_objects(random_state(device))
    return {**first, "other_processes": others}


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Restore what `random_states` returned; a process that was not there then stays where it is."""
    states = [state, *state.get("other_processes", [])]
    if rank() >= len(states):
        return
    state = states[rank()]
    torch.set_rng_state(state["rng"])
    version, _, gauss = random.getstate()
    random.setstate((version, tuple(state["python_rng"].tolist()), gauss))
    if state["cuda_rng"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda_rng"], device)


# ---- which run it is ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fingerprint:
    """Digests of what decides the result of a run beside its settings, in hexadecimal.

    Attributes:
        data: of the rows, as tokens, and of the losses.
        modules: of the model's settings.
        weights: of the weights that the run started from.
    """

    data: str
    modules: str
    weights: str

    @classmethod
    def of(
        cls, model: EmbeddingModel, datasets: Sequence[TrainingDataset], losses: Sequence[Loss], *, multiple: bool
    ) -> Fingerprint:
        """Make the fingerprint of a run that starts now."""
        parts = [dataset.fingerprint() for dataset in datasets]
        parts += [f"{type(loss).__name__} {loss.get_config_dict()} {_loss_settings(loss, model)}" for loss in losses]
        config = {name: value for name, value in model.transformer.config.items() if name not in _NO_EFFECT}
        modules = [f"{type(module).__name__}({module.extra_repr()})" for module in model]
        return cls(
            data=_digest(f"{multiple} {' '.join(parts)}"),
            modules=_digest(json.dumps([config, modules], sort_keys=True, default=str)),
            weights=weights_digest(own_tensors(model)),
        )


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """Digest tensors with their names, but for an adapter, which starts at random; the same on every device."""
    return tensors_digest({name: tensor for name, tensor in tensors.items() if not is_adapter(name)})


def check_same_run(
    checkpoint: Checkpoint,
    state: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    config: TrainingConfig,
    fingerprint: Fingerprint,
) -> None:
    """Refuse to resume with other settings, other data or another model.

    Args:
        checkpoint: where to resume from.
        state: its state.
        weights: its weights.
        config: the settings now.
        fingerprint: of the run now; the model may also be the one in the checkpoint.

    Raises:
        ConfigError: something differs that decides the result; the message lists it.
    """
    # A setting that is newer than the checkpoint had its default then.
    saved, now = {**asdict(TrainingConfig()), **state["config"]}, asdict(config)
    processes = 1 + len(state.get("other_processes", []))
    if processes != world_size() and "place" not in state:
        raise ConfigError(
            f"got {checkpoint.folder} of an earlier version and {world_size()} processes; expected one: start one"
        )
    # Evaluations change nothing, unless they decide which weights are kept, or draw random numbers as in a replay.
    may_change = _MAY_CHANGE if decides(config) or config.replay else (*_MAY_CHANGE, *_OF_EVALUATIONS)
    changed = [
        f"{name} was {saved.get(name)!r} and is {value!r}"
        for name, value in now.items()
        if name not in may_change and saved.get(name) != value
        if name not in _OF_PROCESSES or processes == world_size()
    ]
    before = Fingerprint(**state["identity"])
    if before.data != fingerprint.data:
        changed.append("the rows, their order, or the losses differ")
    if before.modules != fingerprint.modules:
        changed.append("the settings of the model differ")
    if fingerprint.weights not in (before.weights, weights_digest(weights)):
        changed.append("the model to start from has other weights")
    if changed:
        raise ConfigError(
            f"cannot resume {checkpoint.folder}: {'; '.join(changed)}; expected the same run: use the old settings, "
            f"data and model, or start again in another folder"
        )


# ---- one run in a folder --------------------------------------------------------------------------------------------


@contextmanager
def exclusive_lock(directory: Path | None) -> Iterator[None]:
    """Hold an exclusive lock on a directory for a block of code; it is released even if the process is killed.

    The directory is created if needed. If there is none, or it cannot be locked, the block runs without a lock.

    Raises:
        ConfigError: another run holds the lock.
    """
    from filelock import FileLock, Timeout  # not before it is needed

    with contextlib.ExitStack() as stack:
        if directory is not None:
            try:
                stack.enter_context(FileLock(directory / _LOCK, timeout=0))
                stack.callback(_remove, directory / _LOCK)
            except Timeout:
                raise ConfigError(
                    f"another run writes to {directory}; expected a folder of its own: wait for it, or choose another"
                ) from None
            except (OSError, NotImplementedError):
                pass  # whoever writes there next reports the reason
        yield


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):  # Windows does not remove files that are open
        file.unlink()


def _files(folder: Path) -> dict[str, Path]:
    """Find the files in a folder and its subfolders, by their relative names; no links."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path for path in found}


def _write_state(path: Path, state: dict[str, Any]) -> None:
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch hides the error of writing behind one of its own
                raise error.__context__ from None
            raise


def _loss_settings(loss: Loss, model: EmbeddingModel) -> list[str]:
    """Return the plain values of the modules of a loss, such as `reduction`, but not of a model that it holds."""
    return [
        f"{name} {type(module).__name__} {key}={value!r}"
        for name, module in loss.named_modules(memo={*model.modules()})
        for key, value in sorted(vars(module).items())
        if isinstance(value, (bool, int, float, str)) and not key.startswith("_") and key != "training"
    ]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
