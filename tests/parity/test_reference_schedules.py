"""Every rate of every schedule is that of transformers, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch

from minisbert.training.schedules import SchedulerName, make_schedule

optimization = pytest.importorskip("transformers.optimization")
pytestmark = pytest.mark.parity

PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "cosine": [{}, {"num_cycles": 1.5}],
    "cosine_with_restarts": [{}, {"num_cycles": 3}],
    "cosine_with_min_lr": [{"min_lr": 1e-5}, {"min_lr_rate": 0.3, "num_cycles": 1.0}],
    "polynomial": [{}, {"power": 2.5, "lr_end": 1e-5}, {"power": 2}],
    "inverse_sqrt": [{}, {"timescale": 17}],
}


def their_rates(name: str, highest: float, warmup: int, total: int, parameters: dict[str, Any]) -> list[float]:
    """The rate of each update, and of some beyond the last."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=highest)
    scheduler = optimization.get_scheduler(name, optimizer, warmup, total, parameters)
    rates = []
    for _ in range(total + 10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("name", get_args(SchedulerName))
def test_rates(name: SchedulerName, compare: Callable[..., None]) -> None:
    count, largest = 0, 0.0
    for parameters in PARAMETERS.get(name, [{}]):
        for highest, warmup, total in ((1e-3, 0, 97), (2e-5, 13, 1000), (0.37, 1, 7), (5e-5, 50, 333)):
            theirs = their_rates(name, highest, warmup, total, parameters)
            schedule = make_schedule(name, highest=highest, warmup=warmup, total=total, parameters=parameters)
            done = torch.arange(total + 10, dtype=torch.float64)
            together, alone = schedule.rate(done).tolist(), [float(schedule.rate(one)) for one in done]
            assert together == alone
            largest = max(largest, *(abs(one - other) for one, other in zip(alone, theirs, strict=True)))
            count += len(theirs)
    compare("learning rates of every schedule and step", largest, 0, cases=count)
