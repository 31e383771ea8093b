"""What evaluators give, as the loop takes it."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
from ..evaluation import Evaluator


def metric_numbers(metrics: Any, evaluator: Evaluator) -> dict[str, float]:
    """The metrics of an evaluator, which may be numbers of any kind.

    Raises:
        ConfigError: they are something else.
    """
    try:
        found = {str(name): float(value) for name, value in metrics.items()}
    except (AttributeError, TypeError, ValueError, RuntimeError):
        found = {}
    primary = getattr(evaluator, "primary_metric", None)
    if not found or (primary is not None and primary not in found):
        raise ConfigError(
            f"got {str(metrics)[:200]} from {type(evaluator).__name__}; expected numbers by name"
            f"{f', {primary} among them' if primary else ''}: mend the evaluator"
        )
    return found
