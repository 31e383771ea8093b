"""Stand-ins for packages that track runs, for machines without them: they check the calls that the documentation makes.

Their signatures are those of tensorboard 2.21, wandb 0.31, trackio 0.43 and mlflow 3.17, with which the page was tried.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

MODULES = {"torch.utils.tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow"}
_MLFLOW_NAME = re.compile(r"[\w.\-: /]+")


class Tracked:
    """Numbers by name and step, with the checks that all trackers make."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, int], float] = {}

    def log(self, entry: Mapping[str, float], step: int | None = None) -> None:
        assert isinstance(step, int)
        for name, value in entry.items():
            assert isinstance(name, str)
            assert isinstance(value, (int, float))
            self.values[name, step] = value


def missing_modules() -> dict[str, tuple[ModuleType, Tracked]]:
    """A stand-in, and what it is given, for every module whose package is not installed."""
    makers = {"torch.utils.tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio, "mlflow": _mlflow}
    found = {}
    for name, package in MODULES.items():
        if importlib.util.find_spec(package) is None:
            module, tracked = ModuleType(name), Tracked()
            for attribute, value in makers[name](tracked).items():
                setattr(module, attribute, value)
            found[name] = module, tracked
    return found


def _tensorboard(tracked: Tracked) -> dict[str, Any]:
    class SummaryWriter:
        def __init__(self, log_dir: str) -> None:
            assert isinstance(log_dir, str)

        def __enter__(self) -> SummaryWriter:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
            tracked.log({tag: scalar_value}, step=global_step)

    return {"SummaryWriter": SummaryWriter}


def _wandb(tracked: Tracked) -> dict[str, Any]:
    @contextmanager
    def init(*, project: str, config: Mapping[str, Any], mode: str) -> Iterator[Tracked]:
        assert isinstance(config, dict)
        assert mode in ("online", "offline", "disabled")
        yield tracked

    return {"init": init}


def _trackio(tracked: Tracked) -> dict[str, Any]:
    def init(project: str, *, config: Mapping[str, Any]) -> None:
        assert isinstance(config, dict)

    def log(metrics: Mapping[str, float], step: int | None = None) -> None:
        assert "step" not in metrics, "trackio renames it, with a warning"
        tracked.log(metrics, step)

    return {"init": init, "log": log, "finish": lambda: None}


def _mlflow(tracked: Tracked) -> dict[str, Any]:
    @contextmanager
    def start_run() -> Iterator[None]:
        yield

    def log_params(params: Mapping[str, Any]) -> None:
        assert all(_MLFLOW_NAME.fullmatch(name) for name in params)

    def log_metrics(metrics: Mapping[str, float], step: int | None = None) -> None:
        assert all(_MLFLOW_NAME.fullmatch(name) for name in metrics)
        tracked.log(metrics, step)

    return {"start_run": start_run, "log_params": log_params, "log_metrics": log_metrics}
