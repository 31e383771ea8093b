"""Training arguments: old and new names, what they become, and which are refused or warned of."""

from __future__ import annotations

import math
import warnings
from dataclasses import fields
from enum import Enum
from typing import Any

import pytest
import torch

from minisbert.compat.samplers import BatchSamplers, MultiDatasetBatchSamplers
from minisbert.compat.training import arguments, settings
from minisbert.compat.training.arguments import SentenceTransformerTrainingArguments as Arguments
from minisbert.compat.training.settings import settings_of
from minisbert.errors import ConfigError

CPU = torch.device("cpu")


class Strategy(str, Enum):
    EPOCH = "epoch"


def test_older_names() -> None:
    made = Arguments("out", evaluation_strategy=Strategy.EPOCH, per_gpu_train_batch_size=3, no_cuda=True)
    assert (made.eval_strategy, made.train_batch_size, made.use_cpu) == ("epoch", 3, True)
    assert made.do_eval
    assert Arguments("out", gradient_checkpointing=True).activation_checkpointing is True


@pytest.mark.parametrize(
    ("given", "steps"), [({"warmup_ratio": 0.1}, 0.1), ({"warmup_steps": 7, "warmup_ratio": 0.1}, 7)]
)
def test_warmup(given: dict[str, Any], steps: float) -> None:
    made = Arguments("out", **given)
    assert made.warmup_steps == steps
    assert made.get_warmup_steps(101) == (7 if steps == 7 else 11)


def test_derived() -> None:
    made = Arguments(
        eval_strategy="steps", logging_steps=20, save_strategy="steps", load_best_model_at_end=True, report_to="wandb"
    )
    assert (made.output_dir, made.eval_steps, made.report_to) == ("trainer_output", 20, ["wandb"])
    assert (made.metric_for_best_model, made.greater_is_better) == ("loss", False)
    assert (made.batch_sampler, made.multi_dataset_batch_sampler) == (
        BatchSamplers.BATCH_SAMPLER,
        MultiDatasetBatchSamplers.PROPORTIONAL,
    )
    assert (made.world_size, made.process_index, made.local_process_index) == (1, 0, 0)
    assert made.should_log
    assert made.should_save
    assert made.place_model_on_device
    assert Arguments(use_cpu=True).device == CPU
    assert Arguments(use_cpu=True).n_gpu == 0
    with made.main_process_first():
        pass
    assert Arguments(metric_for_best_model="spearman").greater_is_better is True


def test_json() -> None:
    made = Arguments(
        "out", prompts='{"a": "query: "}', learning_rate_mapping='{"embeddings": 1e-5}', router_mapping=None
    )
    assert made.prompts == {"a": "query: "}
    assert made.learning_rate_mapping == {"embeddings": 1e-5}
    assert made.router_mapping == {}
    assert Arguments("out", prompts="query: ").prompts == "query: "
    with pytest.raises(ConfigError, match="learning_rate_mapping"):
        Arguments("out", learning_rate_mapping="embeddings")


def test_shown() -> None:
    made = Arguments("out", learning_rate=1e-3, hub_token="secret")
    assert "learning_rate=0.001" in repr(made)
    shown = made.to_dict()
    assert shown["learning_rate"] == 1e-3
    assert shown["hub_token"] == "<HUB_TOKEN>"
    assert shown["batch_sampler"] == "batch_sampler"
    assert "evaluation_strategy" not in shown
    assert '"seed": 42' in made.to_json_string()
    assert made.to_sanitized_dict()["train_batch_size"] == 8
    assert "batch_sampler" not in Arguments("out", batch_sampler=lambda *_, **__: None).to_dict()


def test_tables_name_arguments() -> None:
    known = {one.name for one in fields(Arguments)}
    assert {*arguments._REFUSED, *arguments._WITHOUT, *arguments._RENAMED, *arguments._JSON} <= known


@pytest.mark.parametrize("name", arguments._REFUSED)
def test_refused_by_name(name: str) -> None:
    value: Any = {"ignore_data_skip": True, "neftune_noise_alpha": 5.0}.get(name, {"a": "query"})
    with pytest.raises(ConfigError, match=rf"got {name}=.*expected"):
        Arguments("out", **{name: value})


@pytest.mark.parametrize("name", arguments._WITHOUT)
def test_warned_of_by_name(name: str) -> None:
    with pytest.warns(UserWarning, match=f"got {name}="):
        Arguments("out", **{name: True})


def test_accepted_silently() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Arguments(
            "out",
            report_to="all",
            dataloader_num_workers=4,
            dataloader_pin_memory=False,
            dataloader_prefetch_factor=2,
            disable_tqdm=True,
            run_name="run",
            logging_dir="logs",
            overwrite_output_dir=True,
            remove_unused_columns=False,
            label_names=["labels"],
            ddp_find_unused_parameters=False,
            auto_find_batch_size=True,
            do_train=True,
            save_safetensors=True,
            group_by_length=True,
            hub_model_id="me/model",
            push_to_hub=False,
            full_determinism=True,
            local_rank=-1,
        )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"eval_strategy": "often"}, "eval_strategy='often'"),
        ({"save_strategy": "often"}, "best"),
        ({"eval_strategy": "steps", "eval_steps": 2.5}, "whole steps"),
        ({"logging_steps": 0}, "logging_steps=0"),
        ({"logging_steps": True}, "logging_steps=True"),
        ({"fp16": True, "bf16": True}, "one of them"),
        ({"load_best_model_at_end": True}, "the same of both"),
        ({"batch_sampler": "sorted"}, "no_duplicates"),
        ({"warmup_steps": -1}, "warmup_steps=-1"),
    ],
)
def test_impossible(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Arguments("out", **given)


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"num_train_epochs": 2.5}, "epochs", 3),
        ({"per_device_train_batch_size": 3}, "batch_size", 3),
        ({"per_device_eval_batch_size": 3}, "eval_batch_size", 3),
        ({"lr_scheduler_type": "cosine_with_restarts"}, "lr_scheduler_type", "cosine_with_restarts"),
        (
            {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-6}},
            "lr_scheduler_kwargs",
            {"min_lr": 1e-6},
        ),
        ({"max_steps": 12}, "max_steps", 12),
        ({}, "max_steps", None),
        ({"bf16": True}, "precision", "bf16"),
        ({"max_grad_norm": None}, "max_grad_norm", 0.0),
        ({"gradient_accumulation_steps": 4}, "gradient_accumulation", 4),
        ({"batch_sampler": "no_duplicates_hashed"}, "batch_sampler", "no_duplicates"),
        ({"multi_dataset_batch_sampler": "round_robin"}, "multi_dataset_batch_sampler", "round_robin"),
        ({"prompts": {"a": "x"}}, "prompts", {"a": "x"}),
        ({"learning_rate_mapping": {"embeddings": 1e-4}}, "learning_rate_mapping", {"embeddings": 1e-4}),
        ({"eval_strategy": "epoch"}, "eval_each_epoch", True),
        ({"gradient_checkpointing": True}, "gradient_checkpointing", True),
        ({"seed": 7}, "seed", 7),
    ],
)
def test_settings(given: dict[str, Any], name: str, value: Any) -> None:
    assert getattr(settings_of(Arguments("out", **given), device=CPU).config, name) == value


def test_setters_of_batches_and_uploads() -> None:
    made = Arguments("out").set_dataloader(16, 64, drop_last=True, sampler_seed=7)
    found = (made.train_batch_size, made.eval_batch_size, made.dataloader_drop_last, made.data_seed)
    assert found == (16, 64, True, 7)
    with pytest.raises(ConfigError, match="ignore_data_skip=True"):
        made.set_dataloader(ignore_data_skip=True)
    with pytest.warns(UserWarning, match="training uploads nothing"):
        uploaded = Arguments("out").set_push_to_hub("me/mine", strategy=Strategy.EPOCH)
    assert (uploaded.push_to_hub, uploaded.hub_model_id, uploaded.hub_strategy) == (True, "me/mine", "epoch")


def test_settings_beside_the_config() -> None:
    given = Arguments(
        "out", num_train_epochs=0.5, adam_beta1=0.8, adam_epsilon=1e-6, data_seed=3, dataloader_drop_last=True
    )
    made = settings_of(given, device=CPU)
    assert (made.epochs, made.betas, made.eps, made.data_seed, made.drop_last) == (0.5, (0.8, 0.999), 1e-6, 3, True)
    with_sgd = made.with_optimizer(torch.optim.SGD, {"lr": 0.1, "momentum": 0.9})
    assert (with_sgd.optimizer, with_sgd.optimizer_options) == (torch.optim.SGD, {"momentum": 0.9})
    assert with_sgd.config.learning_rate == 0.1
    with_adamw = made.with_optimizer(torch.optim.AdamW, {"lr": 0.1, "eps": 1e-5})
    assert (with_adamw.optimizer, with_adamw.eps, with_adamw.betas) == (None, 1e-5, (0.8, 0.999))


def test_refused_settings() -> None:
    with pytest.raises(ConfigError, match="optim='lion_8bit'"):
        settings_of(Arguments("out", optim="lion_8bit"), device=CPU)
    with pytest.raises(ConfigError, match="lr_scheduler_type='greedy'"):
        settings_of(Arguments("out", lr_scheduler_type="greedy"), device=CPU)
    with pytest.raises(ConfigError, match="epochs"):
        settings_of(Arguments("out", num_train_epochs=-1), device=CPU)
    with pytest.warns(UserWarning, match="fp16=True on the CPU"):
        assert settings_of(Arguments("out", fp16=True), device=CPU).config.precision == "fp32"
    with pytest.warns(UserWarning, match="best of all evaluations"):
        settings_of(
            Arguments("out", eval_strategy="steps", eval_steps=2, save_steps=4, load_best_model_at_end=True), device=CPU
        )
    late = Arguments("out")
    late.deepspeed = "config.json"
    with pytest.raises(ConfigError, match="deepspeed"):
        settings_of(late, device=CPU)
    assert set(settings.OPTIMIZERS) >= {"adamw_torch", "adamw_torch_fused"}
    assert math.isclose(settings_of(Arguments("out"), device=CPU).config.learning_rate, 5e-5)
