"""The options of `minisbert train` that are fields of TrainingConfig."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from typing import Any

import pytest

from minisbert.cli.settings import GROUPS, add_settings, given_settings
from minisbert.training.config import TrainingConfig


def parse(*arguments: str, instead_of: str | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_settings(parser, instead_of=instead_of)
    return given_settings(parser.parse_args(arguments))


def test_every_setting_has_an_option_in_one_group() -> None:
    names = [name for group in GROUPS.values() for name in group]
    assert sorted(names) == sorted(field.name for field in fields(TrainingConfig))
    assert TrainingConfig(**parse()) == TrainingConfig()
    assert parse(instead_of="the card's") == {}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            "--lr-scheduler-type cosine_with_restarts --lr-scheduler-kwargs num_cycles=3",
            {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 3}},
        ),
        (
            "--lr-scheduler-type polynomial --lr-scheduler-kwargs power=2 lr_end=1e-6",
            {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2, "lr_end": 1e-6}},
        ),
        (
            r"--learning-rate-mapping embeddings=1e-5 layer\.[01]\.=1e-4 --freeze embeddings .*bias",
            {
                "learning_rate_mapping": {"embeddings": 1e-5, r"layer\.[01]\.": 1e-4},
                "freeze": ("embeddings", ".*bias"),
            },
        ),
        ("--prompts query:", {"prompts": "query:"}),
        ('--prompts {"a":"why:"}', {"prompts": {"a": "why:"}}),
        (
            "--metric-for-best-model f1 --no-greater-is-better",
            {"metric_for_best_model": "f1", "greater_is_better": False},
        ),
        ("--greater-is-better", {"greater_is_better": True}),
    ],
)
def test_options(arguments: str, expected: dict[str, Any]) -> None:
    config = TrainingConfig(**parse(*arguments.split()))
    assert asdict(config) == {**asdict(TrainingConfig()), **expected}
    again = TrainingConfig(**parse(*arguments.split(), instead_of="the card's"))
    assert again == config


def test_prompts_that_are_no_json() -> None:
    with pytest.raises(argparse.ArgumentError, match="expected a text, or JSON such as"):
        parse("--prompts", "{a: b}")


@pytest.mark.parametrize("value", ["num_cycles", "=3", "num_cycles=x"])
def test_a_pair_that_is_none(value: str) -> None:
    with pytest.raises(argparse.ArgumentError, match="expected a name and a number, such as num_cycles=3"):
        parse("--lr-scheduler-kwargs", value)
