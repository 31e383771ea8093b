"""`SentenceTransformerTrainingArguments`: accept every argument of the reference, and say which make no difference."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from ...errors import ConfigError, warn
from ..samplers import BatchSamplers, MultiDatasetBatchSamplers
from .argument_fields import ArgumentFields
from .setters import ArgumentSetters

# Arguments that would change the numbers or the machines of a run: any value but the default is refused.
_REFUSED = {
    "deepspeed": "each process has the whole model: leave it out",
    "fsdp": "each process has the whole model: leave it out",
    "fsdp_config": "each process has the whole model: leave it out",
    "parallelism_config": "each process has the whole model: leave it out",
    "optim_args": "options of optimizers are passed with optimizer_cls_and_kwargs",
    "adafactor": "this optimizer is passed with optimizer_cls_and_kwargs",
    "optim_target_modules": "all weights are trained by one optimizer: leave it out",
    "neftune_noise_alpha": "no noise is added to embeddings: leave it out",
    "router_mapping": "models have no Router: leave it out",
    "ignore_data_skip": "a resumed run goes on after the rows it has seen: leave it out",
}
# Arguments that ask for something beside the training, which is then done without it.
_WITHOUT = {
    "push_to_hub": "training uploads nothing: call model.push_to_hub after it",
    "hub_always_push": "training uploads nothing",
    "use_liger_kernel": "it is trained by minisbert's own kernels",
    "torch_compile_backend": "layers are compiled by torch's default backend",
    "torch_compile_mode": "layers are compiled in torch's default mode",
    "tf32": "set torch.backends.cuda.matmul.allow_tf32 in its place",
    "bf16_full_eval": "the loss on evaluation data is computed in the precision of the training",
    "fp16_full_eval": "the loss on evaluation data is computed in the precision of the training",
    "accelerator_config": "training does not use accelerate",
    "debug": "there is nothing to debug with it",
    "use_ipex": "training does not use this extension",
}
# The other arguments are either used or make no difference.

_RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "no_cuda": "use_cpu",
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
_STRATEGIES = ("no", "steps", "epoch")
_JSON = (
    "lr_scheduler_kwargs",
    "learning_rate_mapping",
    "prompts",
    "router_mapping",
    "accelerator_config",
    "gradient_checkpointing_kwargs",
)


@dataclass(repr=False)
class BaseTrainingArguments(ArgumentSetters, ArgumentFields):
    """Arguments of a training run, of every version of the reference.

    What each does is in the documentation of `TrainingConfig`, which the trainer makes of them. Enums of transformers
    are taken as the texts that they stand for.

    Raises:
        ConfigError: an argument has an impossible value, or one that minisbert does not offer.
    """

    def __post_init__(self) -> None:
        for old, new in _RENAMED.items():
            if (value := getattr(self, old)) not in (None, False) and getattr(self, new) == _default(new):
                setattr(self, new, value)
        self.gradient_checkpointing = self.activation_checkpointing = bool(self.activation_checkpointing)
        self.gradient_checkpointing_kwargs = self.activation_checkpointing_kwargs
        self.output_dir = str(Path(self.output_dir or "trainer_output").expanduser())
        for name in _JSON:
            setattr(self, name, _parsed(name, getattr(self, name)))
        self.learning_rate_mapping = self.learning_rate_mapping or {}
        self.router_mapping = self.router_mapping or {}
        for name in (
            "eval_strategy",
            "logging_strategy",
            "save_strategy",
            "lr_scheduler_type",
            "optim",
            "hub_strategy",
        ):
            setattr(self, name, _plain(getattr(self, name)))
        for name, kind in (
            ("batch_sampler", BatchSamplers),
            ("multi_dataset_batch_sampler", MultiDatasetBatchSamplers),
        ):
            if isinstance(value := getattr(self, name), str):
                setattr(self, name, _member(kind, value, name))
        self._set_warmup()
        self._set_derived()
        self.check()

    def _set_warmup(self) -> None:
        """Keep the share of the warm-up in `warmup_steps`, as version 6 does."""
        if self.warmup_ratio is not None and self.warmup_steps == 0:
            self.warmup_steps = self.warmup_ratio
            self.warmup_ratio = None
        if not self.warmup_steps >= 0:
            raise ConfigError(f"got warmup_steps={self.warmup_steps}; expected a number from 0")

    def _set_derived(self) -> None:
        """Fill in what follows from other arguments, as the reference does."""
        for name in ("eval_strategy", "logging_strategy", "save_strategy"):
            allowed = _STRATEGIES if name != "save_strategy" else (*_STRATEGIES, "best")
            if getattr(self, name) not in allowed:
                raise ConfigError(f"got {name}={getattr(self, name)!r}; expected one of {', '.join(allowed)}")
        if self.eval_strategy == "steps" and not self.eval_steps:
            self.eval_steps = self.logging_steps
        self.do_eval = self.do_eval or self.eval_strategy != "no"
        for kind in ("eval", "logging", "save"):
            steps = getattr(self, f"{kind}_steps")
            if getattr(self, f"{kind}_strategy") == "steps":
                setattr(self, f"{kind}_steps", _steps(f"{kind}_steps", steps, least=kind != "save"))
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            self.metric_for_best_model = "loss"
        if self.greater_is_better is None and self.metric_for_best_model is not None:
            self.greater_is_better = not self.metric_for_best_model.endswith("loss")
        if isinstance(self.report_to, str) or self.report_to is None:
            self.report_to = [] if self.report_to in ("none", None) else [self.report_to]
        self.torch_compile = bool(self.torch_compile or self.torch_compile_backend or self.torch_compile_mode)
        self.disable_tqdm = bool(self.disable_tqdm)
        self.prediction_loss_only = True
        self.ddp_broadcast_buffers = False

    def check(self) -> None:
        """Refuse what minisbert does not offer, and warn of what it does without.

        Raises:
            ConfigError: an argument is refused, or contradicts another.
        """
        for name, reason in _REFUSED.items():
            if _is_set(self, name):
                raise ConfigError(f"got {name}={getattr(self, name)!r}; expected {_default(name)!r}, as {reason}")
        if self.fp16 and self.bf16:
            raise ConfigError("got fp16=True and bf16=True; expected one of them: leave one out")
        if self.load_best_model_at_end and self.save_strategy not in ("best", self.eval_strategy):
            raise ConfigError(
                f"got load_best_model_at_end with eval_strategy={self.eval_strategy!r} and save_strategy="
                f"{self.save_strategy!r}; expected the same of both: set them to 'steps' or 'epoch'"
            )
        for name, reason in _WITHOUT.items():
            if _is_set(self, name):
                warn(f"got {name}={getattr(self, name)!r}, which does nothing here: {reason}")

    # ---- what the reference derives ---------------------------------------------------------------------------------

    @property
    def train_batch_size(self) -> int:
        """Rows of a batch."""
        return self.per_device_train_batch_size

    @property
    def eval_batch_size(self) -> int:
        """Rows of a batch of an evaluation."""
        return self.per_device_eval_batch_size

    @property
    def device(self) -> torch.device:
        """The device that models are trained on by default."""
        return torch.device("cuda" if torch.cuda.is_available() and not self.use_cpu else "cpu")

    @property
    def n_gpu(self) -> int:
        """Number of GPUs used."""
        return int(self.device.type == "cuda")

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return int(os.environ.get("WORLD_SIZE", "1"))

    @property
    def process_index(self) -> int:
        """Number of this process among all."""
        return int(os.environ.get("RANK", "0"))

    @property
    def local_process_index(self) -> int:
        """Number of this process on this machine."""
        return int(os.environ.get("LOCAL_RANK", "0"))

    @property
    def should_log(self) -> bool:
        """True if this process logs."""
        return self.process_index == 0

    @property
    def should_save(self) -> bool:
        """True if this process saves."""
        return self.process_index == 0

    @property
    def place_model_on_device(self) -> bool:
        """True if the trainer moves the model to the device."""
        return True

    @contextmanager
    def main_process_first(self, local: bool = True, desc: str = "work") -> Iterator[None]:
        """Run a block of code, with no other process to wait for."""
        yield

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Return the steps of the warm-up."""
        steps = self.warmup_steps
        return int(steps) if steps >= 1 else math.ceil(num_training_steps * steps)

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments of version 6.2 by name, as plain values; tokens are hidden."""
        names = [one.name for one in fields(self) if not one.kw_only]
        found = {name: _json(getattr(self, name)) for name in names if not isinstance(getattr(self, name), type)}
        return {
            name: f"<{name.upper()}>" if name.endswith("_token") else value
            for name, value in found.items()
            if name not in ("batch_sampler", "multi_dataset_batch_sampler") or not callable(value)
        }

    def to_json_string(self) -> str:
        """Return the arguments as JSON."""
        return json.dumps(self.to_dict(), indent=2, default=str)

    def to_sanitized_dict(self) -> dict[str, Any]:
        """Return the arguments as values that log files hold: numbers and texts."""
        kept = (bool, int, float, str)
        values = {**self.to_dict(), "train_batch_size": self.train_batch_size, "eval_batch_size": self.eval_batch_size}
        return {name: value if isinstance(value, kept) else str(value) for name, value in values.items()}

    def __repr__(self) -> str:
        """Show the arguments that are not defaults."""
        own = (one.name for one in fields(self) if getattr(self, one.name) != _default_of(one))
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in own)})"


@dataclass(repr=False)
class SentenceTransformerTrainingArguments(BaseTrainingArguments):
    """Arguments of a training run of a sentence-embedding model."""


_FIELDS = {one.name: one for one in fields(ArgumentFields)}


def _default_of(one: Field[Any]) -> Any:
    if one.default_factory is not MISSING:
        return one.default_factory()
    return None if one.default is MISSING else one.default


def _default(name: str) -> Any:
    return _default_of(_FIELDS[name])


def _is_set(arguments: BaseTrainingArguments, name: str) -> bool:
    value = getattr(arguments, name)
    return value != _default(name) and value not in (None, False, "", [], {})


def _plain(value: Any) -> Any:
    """Return the text that an enum stands for; anything else as it is."""
    return getattr(value, "value", value)


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json(one) for key, one in value.items()}
    return [_json(one) for one in value] if isinstance(value, (list, tuple)) else _plain(value)


def _member(kind: Any, value: str, name: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        names = ", ".join(one.value for one in kind)
        raise ConfigError(f"got {name}={value!r}; expected one of {names}, or a class") from None


def _parsed(name: str, value: Any) -> Any:
    """Return a mapping that was given as JSON, as on a command line; a prompt may be any other text."""
    if not isinstance(value, str) or (name == "prompts" and not value.startswith("{")):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        if name == "prompts":
            return value
        raise ConfigError(f"got {name}={value!r}, which is no JSON ({error}); expected a dict") from None


def _steps(name: str, value: Any, *, least: bool) -> float:
    """Return a number of steps, or a share of all below 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0 or (least and not value):
        raise ConfigError(f"got {name}={value!r}; expected a number of steps, or a share of all below 1")
    if value < 1:
        return value
    if value != int(value):
        raise ConfigError(f"got {name}={value!r}; expected whole steps, or a share below 1")
    return int(value)
