"""The reference's training to the bit: its forward pass, its random draws in its order, and its `fit`.

With the same seed, rows and settings, losses and final weights are then bitwise those of sentence-transformers 5.1 or
6.2 on the CPU. What differs from packed training:

- every column of a batch is padded to its longest text and embedded by itself, padding included, because dropout is
  drawn for padding too; from three columns on, 6.2 pads all but the first to one width and embeds them together;
- at the start of each epoch, and at each evaluation, the reference's data loader draws one number from the global
  generator;
- some losses are written as the version writes them, which rounds differently (`replay_losses.py`);
- the gradient cache has the reference's mini-batches and order (`replay_cached.py`);
- the plain definitions of the operations are used, never a kernel;
- `fit` has an optimizer, a schedule and evaluations of its own (`FitReplay`).

The order of rows, the losses and the loop are shared with packed training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from .. import kernels
from ..losses import Loss
from ..model import EmbeddingModel
from ..packing import PackedBatch, pack_padded
from .adamw import Optimizer
from .builder import RunBuilder, TrainingSet
from .config import ReplayVersion
from .dataset import TrainingDataset
from .loop import Engine
from .naming import named_parameters
from .optimization import adamw, parameter_groups


class Replay(RunBuilder):
    """Build a run as the Trainer of the version `config.replay`."""

    @property
    def version(self) -> ReplayVersion:
        """The version of the reference."""
        return cast(ReplayVersion, self.config.replay)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Use the plain definitions for a block of code."""
        with kernels.use("reference"), super().computing():
            yield

    def dataset(self, part: TrainingSet) -> TrainingDataset:
        """Tokenize the rows of a data set, for padded batches."""
        return _PaddedDataset(
            part.rows,
            self.model.transformer.text_tokenizer,
            prompts=self.prompts(part),
            leaves_out_prompts=True,
            apart=self.version == "5.1" or part.loss.layered or part.loss.cached or bool(part.loss.forms),
            labels_equal_texts=part.loss.labels_equal_texts,
            padding=self.model.transformer.padding_token,
        )

    def computed_loss(self, loss: Loss) -> Loss:
        """Return the loss, written as the version writes it."""
        from .replay_losses import as_written  # only a replay needs it

        return as_written(loss, self.version)

    def guide_dataset(self, part: TrainingSet, guide: EmbeddingModel) -> TrainingDataset | None:
        """Give a guide the padded tokens of the model, if its own would be the same."""
        from .replay_losses import reads_the_same_tokens

        return None if reads_the_same_tokens(guide, self.model) else super().guide_dataset(part, guide)

    def engine_class(self) -> type[Engine]:
        """Return the engine with the version's gradient cache."""
        from .replay_cached import ReplayEngine, ReplayEngine51

        return ReplayEngine if self.version == "6.2" else ReplayEngine51

    def optimizers(self) -> list[Optimizer]:
        """Make one AdamW for all parameters."""
        config = self.config
        return adamw(
            self.model,
            self.losses(),
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            own_rates=self.own_rates(),
        )

    def duplicates_seed(self, epoch: int) -> int:
        """Return the seed of batches without duplicates: 5.1 ignores `seed`, and with several sets the epoch too."""
        if self.version == "5.1":
            return 0 if self.multiple else epoch
        return super().duplicates_seed(epoch)

    def rows_of_last(self, part: TrainingSet) -> int:
        """Return the rows that are left after full batches of all rows, even if the sampler leaves some out."""
        return len(part.rows) % self.config.eval_batch_size or self.config.eval_batch_size

    def start_epoch(self) -> None:
        """Draw what the data loader draws when its iteration starts."""
        torch.empty((), dtype=torch.int64).random_()

    def start_evaluation(self, step: int) -> None:
        """Draw what the data loader of each evaluation data set draws, or that of none."""
        for _ in range(max(1, len(self.eval_sets))):
            self.start_epoch()


class FitReplay(Replay):
    """Build a run as `fit` does: a schedule that counts full batches only, and an AdamW that is not fused."""

    def start_evaluation(self, step: int) -> None:
        """Draw too, but not at the end of an epoch, where `fit` evaluates past the Trainer and its data loader."""
        if self.config.eval_every is not None and step % self.config.eval_every == 0:
            super().start_evaluation(step)

    def optimizers(self) -> list[Optimizer]:
        """Make AdamW in torch's default form; the names in a BERT checkpoint tell what is not decayed."""
        groups = parameter_groups(
            (
                (parameter, "bias" not in name and "LayerNorm.weight" not in name)
                for name, parameter, _ in named_parameters(self.model, self.losses())
            ),
            weight_decay=self.config.weight_decay,
            own_rates=self.own_rates(),
        )
        return [torch.optim.AdamW(groups, lr=self.config.learning_rate)]

    def schedule_steps(self, total_steps: int) -> int:
        """Return the full batches of the smallest data set, times the epochs, times the data sets (6.2 only)."""
        config = self.config
        if config.max_steps is not None:
            return config.max_steps
        full_batches = min(len(part.rows) // config.batch_size for part in self.sets)
        return full_batches * config.epochs * (len(self.sets) if config.replay == "6.2" else 1)


class _PaddedDataset(TrainingDataset):
    """Rows whose columns are padded; all but the first are embedded together, unless each is to be by itself."""

    def __init__(self, *arguments: Any, padding: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Columns whose prompts have different lengths, or of which one has none, are not embedded together.
        self._padding, self._merged = padding, not self.apart and len(set(self.prompt_lengths[1:])) <= 1

    def pack(self, rows: NDArray[np.int64]) -> tuple[tuple[PackedBatch, ...], tuple[int, ...]]:
        """Pad the columns of `rows`."""
        columns = self.columns(rows)
        counts = [1] * len(columns)
        if self._merged and len(columns) > 1:
            columns = [columns[0], list(chain.from_iterable(columns[1:]))]
            counts = [1, len(counts) - 1]
        packed = (
            replace(pack_padded(texts, padding=self._padding), prompt_length=length)
            for texts, length in zip(columns, self.prompt_lengths, strict=False)  # of merged columns that of the first
        )
        return tuple(packed), tuple(counts)
