"""Losses as a version of the reference writes them: the same values up to rounding, and with it to the bit."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..losses import (
    CachedGISTEmbedLoss,
    CachedMultipleNegativesRankingLoss,
    CachedMultipleNegativesSymmetricRankingLoss,
    Loss,
    MatryoshkaLoss,
    MegaBatchMarginLoss,
    MultipleNegativesRankingLoss,
)
from ..model import EmbeddingModel
from .config import ReplayVersion


def as_written(loss: Loss, version: ReplayVersion) -> Loss:
    """Return the loss that computes `loss` as the version does; it may be `loss` itself."""
    # By exact type, since a class made of one of these may compute something else.
    if type(loss) is CachedGISTEmbedLoss:
        form = _Guided51 if version == "5.1" else _Guided
        settings = {name: value for name, value in loss.get_config_dict().items() if name != "guide"}
        return form(None, loss.guide, **settings)
    if type(loss) is MatryoshkaLoss and loss.cached:
        sampled = loss.n_dims_per_step if version == "6.2" else -1  # which 5.1 does not hand to a cached loss
        inner = as_written(loss.loss, version)
        if inner is loss.loss and sampled == loss.n_dims_per_step:
            return loss
        return MatryoshkaLoss(None, inner, loss.matryoshka_dims, loss.matryoshka_weights, n_dims_per_step=sampled)
    if version == "6.2":
        return loss
    if type(loss) is MultipleNegativesRankingLoss and loss.is_plain:
        return _CrossEntropy(scale=loss.scale, similarity_fct=loss.similarity_fct)
    if isinstance(loss, CachedMultipleNegativesRankingLoss) and (written := _OF_51.get(type(loss))):
        size = loss.mini_batch_size
        return written(scale=loss.scale, similarity_fct=loss.similarity_fct, mini_batch_size=size)
    return loss


def check_replayed(loss: Loss, model: EmbeddingModel, version: ReplayVersion, *, batch_size: int) -> None:
    """Check that a loss with mini-batches can be repeated; others always can, some up to rounding.

    Raises:
        ConfigError: the version lacks an option of it, gives its guide tokens that are not made here, or embeds the
            texts of each mini-batch twice where minisbert embeds those of a batch once.
    """
    got = f"got replay={version!r} with {type(loss).__name__}"
    if isinstance(loss, MegaBatchMarginLoss) and _splits(loss, batch_size):
        raise ConfigError(
            f"{got} in mini-batches, whose dropout is not repeated; expected whole batches: set mini_batch_size to at "
            f"least batch_size={batch_size}, or use_mini_batched_version=False"
        )
    if not loss.cached:
        return
    if isinstance(loss.guide, EmbeddingModel) and not reads_the_same_tokens(loss.guide, model):
        raise ConfigError(
            f"{got} and a guide with another vocabulary or a smaller max_seq_length than the model's, for which the "
            f"reference makes texts of tokens; expected tokens that are its own: take another guide, or train without "
            f"replay"
        )
    if version == "5.1" and (option := _newer_option(loss)):
        raise ConfigError(f"{got} and {option}, which 5.1 does not have; expected replay='6.2', or the default of it")


def _splits(loss: MegaBatchMarginLoss, batch_size: int) -> bool:
    """Return True if the reference embeds a batch in parts."""
    smaller = loss.mini_batch_num_tokens is not None or loss.mini_batch_size < batch_size
    return loss.use_mini_batched_version and smaller


def _newer_option(loss: Loss) -> str | None:
    """Name an option of a loss with a gradient cache that 5.1 does not have."""
    if isinstance(loss, MatryoshkaLoss):
        return _newer_option(loss.loss)
    if loss.mini_batch_num_tokens is not None:
        return "mini_batch_num_tokens"
    symmetric = isinstance(loss, CachedMultipleNegativesSymmetricRankingLoss)
    if isinstance(loss, MultipleNegativesRankingLoss) and not (symmetric or loss.is_plain):
        return "directions or hardness_mode"
    return None


def reads_the_same_tokens(guide: EmbeddingModel, model: EmbeddingModel) -> bool:
    """Return True if the reference gives a guide the tokens of the model: of one vocabulary, and not too long."""
    theirs, ours = (one.transformer.text_tokenizer.tokenizer.get_vocab() for one in (guide, model))
    return theirs == ours and guide.max_seq_length >= model.max_seq_length


class _CrossEntropy(MultipleNegativesRankingLoss):
    def rank(self, scores: Tensor) -> Tensor:
        return F.cross_entropy(scores, torch.arange(len(scores)))


class _CachedCrossEntropy(CachedMultipleNegativesRankingLoss):
    def tile(self, rows: slice, anchors: Tensor, texts: Tensor) -> Tensor:
        return self.ranked_rows(rows, anchors, texts) * len(anchors[rows]) / len(anchors)

    def ranked_rows(self, rows: slice, anchors: Tensor, texts: Tensor) -> Tensor:
        """Return the mean loss of some rows."""
        scores: Tensor = self.similarity_fct(anchors[rows], texts) * self.scale
        return F.cross_entropy(scores, torch.arange(rows.start, rows.stop))


class _SymmetricCrossEntropies(_CachedCrossEntropy):
    def ranked_rows(self, rows: slice, anchors: Tensor, texts: Tensor) -> Tensor:
        return (super().ranked_rows(rows, anchors, texts) + super().ranked_rows(rows, texts, anchors)) / 2


class _Guided(CachedGISTEmbedLoss):
    largest_tile = 2**62  # tiles are as large as is asked for: each has its own rounding


class _Guided51(_Guided):
    def least(self, right: Tensor) -> Tensor:
        return right * (1 - self.margin) if self.margin_strategy == "relative" else super().least(right)


_OF_51 = {
    CachedMultipleNegativesRankingLoss: _CachedCrossEntropy,
    CachedMultipleNegativesSymmetricRankingLoss: _SymmetricCrossEntropies,
}
