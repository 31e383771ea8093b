"""What every evaluator has in common."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..model import EmbeddingModel


class Evaluator(ABC):
    """Called with a model, returns metrics by name.

    Attributes:
        name: put before each metric name, with "_".
        primary_metric: name of the metric that says which model is better; larger is better. Set by each call.
        description: what is evaluated, for the model card.
    """

    description = ""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.primary_metric: str | None = None

    @abstractmethod
    def __call__(
        self,
        model: EmbeddingModel,
        output_path: str | Path | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """Evaluate `model`; `epoch` and `steps` go into the CSV file (-1: outside training)."""

    def named(self, metrics: Mapping[str, float], *, primary: str) -> dict[str, float]:
        """Put the evaluator's name before the metrics, and note which is the primary one."""
        prefix = f"{self.name}_" if self.name else ""
        self.primary_metric = prefix + primary
        return {prefix + metric: value for metric, value in metrics.items()}


def append_csv(path: Path, row: Mapping[str, object]) -> None:
    """Append one row to a CSV file; a new file starts with the names.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(row.keys())
            writer.writerow(row.values())
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); expected a folder that can be written") from error
