"""Schedules of the learning rate: their values, their parameters, and their course in a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import pairs

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.errors import ConfigError
from minisbert.training.schedules import make_schedule

DONE = torch.arange(8, dtype=torch.float64)


def test_linear() -> None:
    assert make_schedule("linear", highest=1.0, warmup=2, total=6).rate(DONE).tolist() == [
        *(0, 0.5, 1, 0.75, 0.5, 0.25, 0, 0)
    ]
    assert make_schedule("linear", highest=1.0, warmup=0, total=3).rate(DONE[0]) == 1
    # The same bits as in Python's floats, in which the reference computes.
    for highest, warmup, total in ((1e-3, 2, 6), (0.1, 0, 3), (2.0, 5, 5), (2e-5, 3, 7)):
        rising = [highest * (s / max(1, warmup)) for s in range(warmup)]
        falling = [highest * max(0.0, (total - s) / max(1, total - warmup)) for s in range(warmup, 8)]
        schedule = make_schedule("linear", highest=highest, warmup=warmup, total=total)
        assert schedule.rate(DONE).tolist() == rising + falling
        assert [float(schedule.rate(one)) for one in DONE] == rising + falling


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("constant", {}, [1] * 8),
        ("constant_with_warmup", {}, [0, 0.5, *[1] * 6]),
        ("cosine", {}, [0, 0.5, 1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4, 0, (2 - math.sqrt(2)) / 4]),
        ("cosine_with_restarts", {"num_cycles": 2}, [0, 0.5, 1, 0.5, 1, 0.5, 0, 0]),
        ("cosine_with_min_lr", {"min_lr_rate": 0.5}, [0, 0.5, 1, 0.5 + (2 + math.sqrt(2)) / 8, 0.75]),
        ("cosine_with_min_lr", {"min_lr": 1.0}, [0, 0.5, 1, 0.5 + (2 + math.sqrt(2)) / 8, 0.75]),
        ("polynomial", {"power": 2, "lr_end": 0.0}, [0, 0.5, 1, 9 / 16, 1 / 4, 1 / 16, 0, 0]),
        ("polynomial", {"lr_end": 1.0}, [0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 1 / 2, 1 / 2]),
        ("inverse_sqrt", {}, [0, 0.5, *(1 / math.sqrt(s / 2) for s in range(2, 8))]),
        ("inverse_sqrt", {"timescale": 4}, [0, 0.5, *(1 / math.sqrt((s + 2) / 4) for s in range(2, 8))]),
        ("inverse_sqrt", {"timescale": 1}, [0, 0.5, *(1 / math.sqrt(s - 1) for s in range(2, 8))]),
    ],
)
def test_the_course_of_the_others(name: Any, parameters: dict[str, float], expected: list[float]) -> None:
    schedule = make_schedule(name, highest=2.0, warmup=2, total=6, parameters=parameters)
    assert schedule.rate(DONE).tolist()[: len(expected)] == pytest.approx([2 * share for share in expected], abs=1e-15)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_scheduler_type": "greedy"}, "expected one of 'linear', 'cosine'"),
        ({"lr_scheduler_kwargs": {"num_cycles": 2}}, "expected none for linear: leave it out"),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"cycles": 2}}, "expected only num_cycles for cosine"),
        (
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 0}},
            "expected a number above 0 for num",
        ),
        (
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": "2"}},
            "expected numbers from 0 by name",
        ),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": 3}, "expected numbers from 0 by name, in a dict"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "expected either min_lr or min_lr_rate"),
        ({"lr_scheduler_type": "polynomial", "learning_rate": 1e-7}, "expected lr_end below the learning rate, 1e-07"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(**settings)


def test_a_run_logs_the_rate_of_each_step(tiny: Callable[[str], Path]) -> None:
    config = TrainingConfig(
        epochs=2,
        batch_size=6,
        lr_scheduler_type="cosine_with_restarts",
        lr_scheduler_kwargs={"num_cycles": 2},
        warmup_steps=2,
        log_every=1,
    )
    model = SentenceTransformer(tiny("bert"), device="cpu")
    trainer = Trainer(model, pairs(), loss=losses.CosineSimilarityLoss(), config=config, show_progress_bar=False)
    rates = [entry["learning_rate"] for entry in trainer.train().entries]
    schedule = make_schedule(
        "cosine_with_restarts", highest=5e-5, warmup=2, total=8, parameters=config.lr_scheduler_kwargs
    )
    assert rates == schedule.rate(DONE).tolist()
    assert rates[0] == 0 < rates[4] < rates[5] == rates[2]


@pytest.mark.gpu
def test_rates_on_a_gpu_are_those_of_the_cpu() -> None:
    for name in ("linear", "cosine", "cosine_with_restarts", "polynomial", "inverse_sqrt", "constant_with_warmup"):
        schedule = make_schedule(name, highest=1e-3, warmup=2, total=6)  # type: ignore[arg-type]
        torch.testing.assert_close(schedule.rate(DONE.cuda()).cpu(), schedule.rate(DONE), rtol=1e-14, atol=1e-18)
