"""From the arguments of training to the settings of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...errors import ConfigError, warn
from ...training.config import PrecisionMode, TrainingConfig
from ...training.optimization import BETAS, EPS
from ...training.schedules import SchedulerName
from .arguments import BaseTrainingArguments

OPTIMIZERS: Mapping[str, type[torch.optim.Optimizer] | None] = {  # None: AdamW
    "adamw_torch_fused": None,
    "adamw_torch": None,
    "adamw_hf": None,
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
}

_OF_ADAMW = {"betas", "eps", "correct_bias"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a run: minisbert's, and those that it has no name for.

    Attributes:
        config: minisbert's settings.
        epochs: passes over the rows; a part of one too.
        betas: decay of the two moments of AdamW.
        eps: added to its denominator.
        optimizer: class of another optimizer, or None.
        optimizer_options: of `optimizer`, beside learning rate and weight decay.
        data_seed: decides the order of the rows of a single data set; None for the seed of the run.
        drop_last: leave out the last batch of a data set if it is not full.
        decays_by_name: the names of parameters tell which are not decayed, as in the old `fit`.
        schedule_steps: updates that the schedule counts on; None for those of the run.
    """

    config: TrainingConfig
    epochs: float
    betas: tuple[float, float] = BETAS
    eps: float = EPS
    optimizer: type[torch.optim.Optimizer] | None = None
    optimizer_options: Mapping[str, Any] | None = None
    data_seed: int | None = None
    drop_last: bool = False
    decays_by_name: bool = False
    schedule_steps: int | None = None

    def with_changes(self, **changes: Any) -> Settings:
        """Return the settings with some of minisbert's changed."""
        return replace(self, config=replace(self.config, **changes))

    def with_optimizer(self, kind: type[torch.optim.Optimizer], options: Mapping[str, Any]) -> Settings:
        """Return the settings with another optimizer; one called AdamW is minisbert's, if its options allow that."""
        rest = dict(options)
        changed = self.with_changes(learning_rate=rest.pop("lr", self.config.learning_rate))
        if kind.__name__ == "AdamW" and set(rest) <= _OF_ADAMW and rest.get("correct_bias", True):
            betas = tuple(rest.get("betas", self.betas))
            return replace(changed, optimizer=None, betas=betas, eps=rest.get("eps", self.eps))
        return replace(changed, optimizer=kind, optimizer_options=rest)


def settings_of(arguments: BaseTrainingArguments, *, device: torch.device) -> Settings:
    """Translate arguments.

    Args:
        arguments: of the run.
        device: of the model.

    Raises:
        ConfigError: an argument is refused, or has an impossible value.
    """
    arguments.check()
    if arguments.optim not in OPTIMIZERS:
        raise ConfigError(
            f"got optim={arguments.optim!r}; expected one of {', '.join(OPTIMIZERS)}: for another optimizer pass "
            f"optimizer_cls_and_kwargs to the trainer"
        )
    epochs, optimizer = arguments.num_train_epochs, OPTIMIZERS[arguments.optim]
    config = TrainingConfig(
        epochs=max(1, math.ceil(epochs)) if epochs > 0 else int(epochs),
        batch_size=arguments.per_device_train_batch_size,
        eval_batch_size=arguments.per_device_eval_batch_size,
        learning_rate=arguments.learning_rate,
        lr_scheduler_type=_schedule(arguments.lr_scheduler_type),
        lr_scheduler_kwargs=arguments.lr_scheduler_kwargs or None,  # type: ignore[arg-type]
        warmup_steps=arguments.warmup_steps,
        learning_rate_mapping=arguments.learning_rate_mapping or None,  # type: ignore[arg-type]
        weight_decay=arguments.weight_decay,
        max_grad_norm=arguments.max_grad_norm or 0.0,
        precision=_precision(arguments, device),
        gradient_checkpointing=bool(arguments.activation_checkpointing),
        compile=arguments.torch_compile,
        seed=arguments.seed,
        max_steps=arguments.max_steps if arguments.max_steps > 0 else None,
        gradient_accumulation=arguments.gradient_accumulation_steps,
        batch_sampler=_sampling(arguments.batch_sampler),
        multi_dataset_batch_sampler=(
            "round_robin" if arguments.multi_dataset_batch_sampler == "round_robin" else "proportional"
        ),
        prompts=arguments.prompts or None,
        keep_best=arguments.load_best_model_at_end,
        metric_for_best_model=arguments.metric_for_best_model,
        greater_is_better=arguments.greater_is_better,
        **_intervals(arguments),
    )
    by_steps = arguments.load_best_model_at_end and arguments.save_strategy == "steps"
    if by_steps and arguments.save_steps != arguments.eval_steps:
        warn(
            f"load_best_model_at_end goes back to the best of all evaluations, every {arguments.eval_steps} steps, not "
            f"only to the best checkpoint, saved every {arguments.save_steps}"
        )
    return Settings(
        config=config,
        epochs=epochs,
        betas=(arguments.adam_beta1, arguments.adam_beta2),
        eps=arguments.adam_epsilon,
        optimizer=optimizer,
        data_seed=arguments.data_seed,
        drop_last=arguments.dataloader_drop_last,
    )


def _intervals(arguments: BaseTrainingArguments) -> dict[str, Any]:
    """Return the intervals as far as they are known before the run; its course follows the arguments themselves."""
    found: dict[str, Any] = {"eval_each_epoch": arguments.eval_strategy == "epoch"}
    for name, kind in (("log_every", "logging"), ("eval_every", "eval"), ("save_every", "save")):
        steps = getattr(arguments, f"{kind}_steps")
        if getattr(arguments, f"{kind}_strategy") == "steps" and steps and steps >= 1:
            found[name] = int(steps)
    return found


def _schedule(name: Any) -> SchedulerName:
    known: Any = SchedulerName
    if name not in known.__args__:
        raise ConfigError(f"got lr_scheduler_type={name!r}; expected one of {', '.join(known.__args__)}")
    chosen: SchedulerName = name
    return chosen


def _sampling(sampler: Any) -> Any:
    """Return minisbert's name of a sampler; a class of the user's own makes the batches itself."""
    name = getattr(sampler, "value", None)
    if name == "no_duplicates_hashed":  # the same batches
        return "no_duplicates"
    return name if isinstance(name, str) else "batch_sampler"


def _precision(arguments: BaseTrainingArguments, device: torch.device) -> PrecisionMode:
    if arguments.fp16 and device.type == "cpu":
        warn("got fp16=True on the CPU, where it trains in float32, as the reference does: leave it out, or take bf16")
        return "fp32"
    return "fp16" if arguments.fp16 else "bf16" if arguments.bf16 else "fp32"
