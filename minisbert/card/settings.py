"""Settings of a run under the names that transformers has for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def hyperparameters(settings: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a `TrainingConfig` as cards list them: those that transformers has too, then those it does not.

    When to log, evaluate and save is no hyperparameter.
    """
    replay = settings["replay"]
    values = {
        "per_device_train_batch_size": settings["batch_size"],
        "num_train_epochs": settings["epochs"],
        "max_steps": settings["max_steps"] or -1,
        "learning_rate": float(settings["learning_rate"]),
        "lr_scheduler_type": "linear",
        "warmup_steps": settings["warmup_steps"],
        "optim": "adamw_torch",
        "weight_decay": float(settings["weight_decay"]),
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "gradient_accumulation_steps": settings["gradient_accumulation"],
        "max_grad_norm": float(settings["max_grad_norm"]),
        "bf16": settings["precision"] == "bf16",
        "fp16": settings["precision"] == "fp16",
        "torch_compile": settings["compile"],
        "load_best_model_at_end": settings["keep_best"],
        "seed": settings["seed"],
        "batch_sampler": settings["batch_sampler"],
        "multi_dataset_batch_sampler": settings["multi_dataset_batch_sampler"],
    }
    if replay is not None:
        values["replay"] = replay
    return {name: str(value) for name, value in values.items()}


def non_default(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, str]:
    """Those that were set to something of their own."""
    usual = hyperparameters(defaults)
    return {name: value for name, value in hyperparameters(settings).items() if usual.get(name) != value}
