"""The reference's training to the bit: its forward pass, its random draws in its order, and the ways of its `fit`.

With the same seed, rows and settings, losses and final weights are then bitwise those of sentence-transformers 5.1 or
6.2 on the CPU. What it takes, beside what packed training shares (the order of rows, the losses, the schedule):

- every column of a batch is padded to its longest text and run by itself, padding included, because dropout is drawn
  for padding too; from three columns on, 6.2 pads all but the first to one width and runs them together;
- at the start of each epoch, and at each evaluation, the reference's data loader draws one number from the global
  generator;
- the ranking loss of 5.1 is written as a cross entropy, which rounds differently;
- the definitions in `kernels/plain.py` are used, never a kernel;
- `fit` has an optimizer, a schedule and evaluations of its own (`FitReplay`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..losses import Loss, MultipleNegativesRankingLoss
from ..model import EmbeddingModel
from ..modules.architectures import checkpoint_names
from ..modules.encoder import Encoder
from ..modules.features import Features
from ..packing import pack_padded
from .config import ReplayVersion, TrainingConfig
from .optimization import adamw, owned_parameters, parameter_groups


class Replay:
    """How the reference's Trainer of a version does what packed training does in its own way."""

    def __init__(self, version: ReplayVersion) -> None:
        self.version = version

    def duplicates_seed(self, epoch: int, *, seed: int, several: bool) -> int:
        """What seeds batches without duplicates: 5.1 does not hand on its seed, and with several sets not the epoch."""
        if self.version == "5.1":
            return 0 if several else epoch
        return seed + epoch

    def start_epoch(self) -> None:
        """Draw what the data loader draws when it is iterated."""
        _draw_for_loader()

    def start_evaluation(self, *, at_epoch_end: bool) -> None:
        """Draw what an evaluation by the Trainer draws."""
        _draw_for_loader()

    def loss(self, loss: Loss) -> Loss:
        """The loss, written as the version writes it."""
        if self.version == "5.1" and type(loss) is MultipleNegativesRankingLoss:
            return _CrossEntropyRanking(scale=loss.scale, similarity_fct=loss.similarity_fct)
        return loss

    def embed(self, model: EmbeddingModel, columns: Sequence[Sequence[NDArray[np.int32]]]) -> list[Tensor]:
        """Embed the columns of a batch, given as the token ids of each text: one (rows, dim) tensor for each."""
        first, *others = columns
        if self.version == "6.2" and len(others) > 1:
            merged = list(chain.from_iterable(others))
            return [_embed(model, first), *_embed(model, merged).chunk(len(others))]
        return [_embed(model, texts) for texts in columns]

    def optimizer(self, model: EmbeddingModel, losses: Sequence[Loss], config: TrainingConfig) -> torch.optim.Optimizer:
        """The optimizer of a run."""
        return adamw(model, losses, learning_rate=config.learning_rate, weight_decay=config.weight_decay)[0]

    def schedule_steps(self, steps: int, rows: Sequence[int], config: TrainingConfig) -> int:
        """At which optimizer step the learning rate reaches 0, in a run of `steps` over data sets of so many rows."""
        return steps


class FitReplay(Replay):
    """The ways of `fit`: a schedule that counts full batches only, and an AdamW that is not fused."""

    def start_evaluation(self, *, at_epoch_end: bool) -> None:
        """At the end of an epoch `fit` calls the evaluator itself, past the Trainer and its data loader."""
        if not at_epoch_end:
            super().start_evaluation(at_epoch_end=at_epoch_end)

    def optimizer(self, model: EmbeddingModel, losses: Sequence[Loss], config: TrainingConfig) -> torch.optim.Optimizer:
        """AdamW in torch's own default form; what is not decayed is told by the names of a BERT checkpoint."""
        groups = parameter_groups(
            (
                (parameter, "bias" not in name and "LayerNorm.weight" not in name)
                for name, parameter in _reference_names(model, losses)
            ),
            weight_decay=config.weight_decay,
        )
        return torch.optim.AdamW(groups, lr=config.learning_rate)

    def schedule_steps(self, steps: int, rows: Sequence[int], config: TrainingConfig) -> int:
        """The full batches of the smallest data set, times the epochs, times the data sets (6.2 only)."""
        if config.max_steps is not None:
            return config.max_steps
        full_batches = min(count // config.batch_size for count in rows)
        return full_batches * config.epochs * (len(rows) if self.version == "6.2" else 1)


class _CrossEntropyRanking(MultipleNegativesRankingLoss):
    def rank(self, scores: Tensor) -> Tensor:
        return F.cross_entropy(scores, torch.arange(len(scores)))


def _draw_for_loader() -> None:
    torch.empty((), dtype=torch.int64).random_()


def _embed(model: EmbeddingModel, texts: Sequence[NDArray[np.int32]]) -> Tensor:
    batch = pack_padded(texts, padding=model.transformer.padding_token).to(model.device)
    embedded: Features = model(Features(batch))
    return embedded.sentences


def _reference_names(model: EmbeddingModel, losses: Sequence[Loss]) -> list[tuple[str, torch.nn.Parameter]]:
    """All parameters in order, those of the encoder by their names in a checkpoint."""
    named = []
    encoder = model.transformer.auto_model
    names = checkpoint_names(model.transformer.config, encoder.state_dict()) if isinstance(encoder, Encoder) else {}
    prefix = "0.auto_model."
    for name, parameter, _ in owned_parameters(model, *losses):
        plain = name.removeprefix(prefix)
        named.append((names.get(plain, plain), parameter))
    return named
