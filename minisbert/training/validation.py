"""The loss on evaluation data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ..data.sampling import EpochSampler
from ..distributed import alone, gather_objects, rank, world_size
from .dataset import TrainingDataset
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
        """The mean over rows of the losses of their batches, in the dtype of the loss as in the reference.

        The processes of a run take turns with the batches.
        """
        losses, counts = [], []
        batches = list(islice(one.sampler.epoch(0), rank(), None, world_size()))
        with alone():  # a loss gathers no rows of other batches
            for _, rows in batches:
                batch = one.rows.batch(rows).to(self.engine.model.device)
                losses.append(self.engine.loss(one.loss, batch, self.engine.embed))
                counts.append(len(rows))
        values = torch.stack(losses).cpu().numpy() if losses else np.empty(0, np.float32)  # waits for a GPU once
        parts = [list(zip(*part, strict=True)) for part in gather_objects((values, counts))]
        every = [each for turn in zip_longest(*parts) for each in turn if each is not None]
        repeats = [count for _, count in every]
        repeats[-1] = repeats[-1] if one.last is None else one.last
        return float(np.repeat([value for value, _ in every], repeats).mean())
