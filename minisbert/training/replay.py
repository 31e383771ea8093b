"""The reference's training to the bit: its forward pass, its random draws in its order, and its `fit`.

With the same seed, rows and settings, losses and final weights are then bitwise those of sentence-transformers 5.1 or
6.2 on the CPU. What differs from packed training:

- every column of a batch is padded to its longest text and embedded by itself, padding included, because dropout is
  drawn for padding too; from three columns on, 6.2 pads all but the first to one width and embeds them together;
- at the start of each epoch, and at each evaluation, the reference's data loader draws one number from the global
  generator;
- the ranking loss of 5.1 is written as a cross entropy, which rounds differently;
- the plain definitions of the operations are used, never a kernel;
- `fit` has an optimizer, a schedule and evaluations of its own (`FitReplay`).

The order of rows, the losses and the loop are shared with packed training.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import kernels
from ..data.roles import TrainingRows
from ..losses import Loss, MultipleNegativesRankingLoss
from ..model import EmbeddingModel
from ..modules.architectures import checkpoint_names
from ..modules.encoder import Encoder
from ..packing import PackedBatch, pack_padded
from ..text import TextTokenizer
from .builder import RunBuilder
from .dataset import TrainingDataset
from .optimization import adamw, owned_parameters, parameter_groups


class Replay(RunBuilder):
    """Build a run as the Trainer of the version `config.replay`."""

    def computing(self) -> AbstractContextManager[None]:
        """Use the plain definitions for a block of code."""
        return kernels.use("reference")

    def dataset(self, rows: TrainingRows) -> TrainingDataset:
        """Tokenize rows for padded batches."""
        transformer = self.model.transformer
        merged = self.config.replay == "6.2"
        return _PaddedDataset(rows, transformer.tokenizer, padding=transformer.padding_token, merged=merged)

    def computed_loss(self, loss: Loss) -> Loss:
        """Return the loss, written as the version writes it."""
        if self.config.replay == "5.1" and type(loss) is MultipleNegativesRankingLoss and loss.is_plain:
            return _CrossEntropyRanking(scale=loss.scale, similarity_fct=loss.similarity_fct)
        return loss

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Make one AdamW for all parameters."""
        config = self.config
        return adamw(self.model, self.losses(), learning_rate=config.learning_rate, weight_decay=config.weight_decay)

    def duplicates_seed(self, epoch: int) -> int:
        """Return the seed of batches without duplicates: 5.1 ignores `seed`, and with several sets the epoch too."""
        if self.config.replay == "5.1":
            return 0 if self.multiple else epoch
        return super().duplicates_seed(epoch)

    def start_epoch(self) -> None:
        """Draw what the data loader draws when its iteration starts."""
        torch.empty((), dtype=torch.int64).random_()

    def start_evaluation(self, step: int) -> None:
        """Draw what the data loader draws before an evaluation."""
        self.start_epoch()


class FitReplay(Replay):
    """Build a run as `fit` does: a schedule that counts full batches only, and an AdamW that is not fused."""

    def start_evaluation(self, step: int) -> None:
        """Draw too, but not at the end of an epoch, where `fit` evaluates past the Trainer and its data loader."""
        if self.config.eval_every is not None and step % self.config.eval_every == 0:
            super().start_evaluation(step)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Make AdamW in torch's default form; the names in a BERT checkpoint tell what is not decayed."""
        groups = parameter_groups(
            (
                (parameter, "bias" not in name and "LayerNorm.weight" not in name)
                for name, parameter in _reference_names(self.model, self.losses())
            ),
            weight_decay=self.config.weight_decay,
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
    """Rows whose columns are padded and embedded one after the other; with `merged`, all but the first together."""

    def __init__(self, rows: TrainingRows, tokenizer: TextTokenizer, *, padding: int, merged: bool) -> None:
        super().__init__(rows, tokenizer)
        self._padding, self._merged = padding, merged

    def pack(self, rows: NDArray[np.int64]) -> tuple[tuple[PackedBatch, ...], tuple[int, ...]]:
        """Pad the columns of `rows`."""
        columns = self.columns(rows)
        counts = [1] * len(columns)
        if self._merged and len(columns) > 1:
            columns = [columns[0], list(chain.from_iterable(columns[1:]))]
            counts = [1, len(counts) - 1]
        return tuple(pack_padded(texts, padding=self._padding) for texts in columns), tuple(counts)


class _CrossEntropyRanking(MultipleNegativesRankingLoss):
    def rank(self, scores: Tensor) -> Tensor:
        return F.cross_entropy(scores, torch.arange(len(scores)))


def _reference_names(model: EmbeddingModel, losses: list[Loss]) -> list[tuple[str, nn.Parameter]]:
    """Return all parameters in order, those of the encoder by their names in a checkpoint."""
    named = []
    encoder = model.transformer.auto_model
    names = checkpoint_names(model.transformer.config, encoder.state_dict()) if isinstance(encoder, Encoder) else {}
    for name, parameter, _ in owned_parameters(model, *losses):
        plain = name.removeprefix("0.auto_model.")
        named.append((names.get(plain, plain), parameter))
    return named
