"""Several evaluators as one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .base import Evaluator

if TYPE_CHECKING:
    from ..model import EmbeddingModel


def _last(scores: list[float]) -> float:
    return scores[-1]


class SequentialEvaluator(Evaluator):
    """Calls evaluators one after the other.

    The metrics are those of all evaluators, and `sequential_score`, the primary one. Where two give a metric of the
    same name, the later one counts, with a warning.

    Args:
        evaluators: what is called.
        main_score_function: from the primary metric of each evaluator to one number; by default the last of them.

    Raises:
        InputError: there are none.
    """

    description = "Sequential"

    def __init__(
        self, evaluators: Iterable[Evaluator], *, main_score_function: Callable[[list[float]], float] = _last
    ) -> None:
        super().__init__()
        self.evaluators = list(evaluators)
        if not self.evaluators:
            raise InputError("got no evaluators; expected at least one: put one in the list")
        self.main_score_function = main_score_function

    def __call__(
        self,
        model: EmbeddingModel,
        output_path: str | Path | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """Evaluate `model`: metric names to values."""
        metrics: dict[str, float] = {}
        scores = []
        for evaluator in self.evaluators:
            found = evaluator(model, output_path, epoch=epoch, steps=steps)
            scores.append(found[evaluator.primary_metric or next(iter(found))])
            twice = sorted(metrics.keys() & found.keys())
            if twice:
                warnings.warn(
                    f"several evaluators give the metric {twice[0]}; only the last is kept: give them names",
                    stacklevel=2,
                )
            metrics |= found
        metrics["sequential_score"] = float(self.main_score_function(scores))
        return self.named(metrics, primary="sequential_score")
