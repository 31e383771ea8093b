"""The loss on evaluation data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ..data.sampling import EpochSampler
from .dataset import TrainingBatch, TrainingDataset
from .loop import Engine


class EvaluationSet(NamedTuple):
    """Rows to evaluate on.

    Attributes:
        metric: name of the result, "loss" or "<name of the data set>_loss".
        rows: the rows.
        sampler: cuts them into shuffled batches, the same in every evaluation.
        loss: takes their embeddings.
        last: rows that the last batch counts as, or None for those that it has.
    """

    metric: str
    rows: TrainingDataset
    sampler: EpochSampler
    loss: nn.Module
    last: int | None = None


@dataclass
class Validation:
    """Computes the mean loss of each evaluation data set, with the engine of the run.

    Attributes:
        engine: embeds the texts.
        sets: the data sets.
    """

    engine: Engine
    sets: Sequence[EvaluationSet]

    @torch.inference_mode()  # as `encode` does, so that compiled layers serve both
    def __call__(self) -> dict[str, float]:
        """Return the mean loss over the rows of each data set, by the name of the metric."""
        self.engine.model.eval()
        return {one.metric: self._mean(one) for one in self.sets}

    def _mean(self, one: EvaluationSet) -> float:
        """The mean over rows of the losses of their batches, in the dtype of the loss as in the reference."""
        losses, counts = [], []
        for rows, batch in _batches(one):
            losses.append(self.engine.loss(one.loss, batch.to(self.engine.model.device), self.engine.embed))
            counts.append(rows)
        counts[-1] = counts[-1] if one.last is None else one.last
        values = torch.stack(losses).cpu().numpy()  # waits for a GPU once
        return float(np.repeat(values, counts).mean())


def _batches(one: EvaluationSet) -> Iterator[tuple[int, TrainingBatch]]:
    """Yield the number of rows of each batch, and the batch."""
    for _, rows in one.sampler.epoch(0):
        yield len(rows), one.rows.batch(rows)
