"""Choose the best evaluation of a run, and stop the run when no better one comes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..errors import ConfigError
from .config import TrainingConfig
from .history import TrainingHistory


def note_evaluation(
    history: TrainingHistory, config: TrainingConfig, metrics: Mapping[str, float], primary: float | None, *, step: int
) -> bool:
    """Note in the history whether an evaluation is the best so far, and whether the run is to stop.

    Args:
        history: of the run.
        config: its settings.
        metrics: results of the evaluation by name.
        primary: the evaluator's primary metric; None without an evaluator.
        step: the step after which they were measured.

    Returns:
        True if it is the best so far.

    Raises:
        ConfigError: there is no metric of the name in the settings.
    """
    metric = chosen_metric(config, metrics, primary)
    if metric is None:
        return False
    best = history.best_metric
    upward = _larger_is_better(config, has_evaluator=primary is not None)
    is_better = not math.isnan(metric) and (best is None or (metric > best if upward else metric < best))
    gained = is_better and (best is None or abs(metric - best) > config.early_stopping_threshold)
    waited = history.evaluations_without_gain
    history.evaluations_without_gain = 0 if gained or waited is None else waited + 1
    if config.early_stopping_patience is not None:
        history.stopped_early = history.evaluations_without_gain >= config.early_stopping_patience
    if is_better:
        history.best_metric, history.best_step = metric, step
    return is_better


def loss_metric(name: str) -> str:
    """Return the name under which the loss on a data set is logged; the only one has no name."""
    return f"{name}_loss" if name else "loss"


def decides(config: TrainingConfig) -> bool:
    """Return True if the evaluations of a run decide its weights."""
    return config.keep_best or config.early_stopping_patience is not None


def chosen_metric(config: TrainingConfig, metrics: Mapping[str, float], primary: float | None) -> float | None:
    """Return the metric that decides: the one that the settings name, the evaluator's primary one, or the only loss.

    It is None if there are several losses and nothing to decide.

    Raises:
        ConfigError: there is no metric of that name, or none is named and there are several losses to choose from.
    """
    name = _name(config)
    if name is None and primary is not None:
        return primary
    if name is None and len(metrics) == 1:
        return next(iter(metrics.values()))
    if name is not None and name in metrics:
        return metrics[name]
    if name is None and not decides(config):
        return None
    raise ConfigError(
        f"got metric_for_best_model={config.metric_for_best_model!r}; expected one of the metrics of this run: set it "
        f"to {', '.join(map(repr, metrics))}"
    )


def _name(config: TrainingConfig) -> str | None:
    name = config.metric_for_best_model
    return None if name is None else name.removeprefix("eval_")


def _larger_is_better(config: TrainingConfig, *, has_evaluator: bool) -> bool:
    if config.greater_is_better is not None:
        return config.greater_is_better
    name = _name(config)
    return has_evaluator if name is None else not name.endswith("loss")
