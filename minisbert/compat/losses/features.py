"""The base of the losses that hold the model and embed texts by themselves, as code for the reference calls them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ...card.composing import papers
from ...errors import InputError, InputTypeError, shown, warn
from ...losses import Loss
from ...losses.base import Labels
from ...modules.recompute import recomputed
from ...packing import PackedBatch
from ..models.features import Padding

Texts: TypeAlias = Mapping[str, Any]  # the tokens of a column: tensors of (texts, length) by name


class FeatureLoss(Loss):
    """Base of the losses, before one of `minisbert.losses` among the bases.

    `loss(sentence_features, labels)` embeds the tokens of each column with the model that it holds; with tensors in
    their place, it is the loss of `minisbert.losses`, and `Trainer` trains with it. The model is one of its modules, so
    that `parameters()` has all that is trained.

    Where `minisbert.losses` refuses rows that the reference computes a number of, it warns and computes the number.

    Attributes:
        held_as: name of the attribute that is the model.
        columns_read: number of columns that count, or None for all.
        usual_labels: smallest and largest label that make sense, or None for any.
    """

    held_as: str = "model"
    columns_read: int | None = None
    usual_labels: tuple[float, float] | None = None

    def hold(self, model: object) -> None:
        """Make the model a module of the loss; call it at the end of `__init__`.

        Raises:
            InputTypeError: it is none.
        """
        if not isinstance(model, nn.Module):
            raise InputTypeError(
                f"got {shown(model)} as the model of {type(self).__name__}; expected a SentenceTransformer"
            )
        setattr(self, self.held_as, model)
        self.usual_labels, self.label_range = self.label_range, None
        if self.columns_read is not None:
            self.max_columns = None
        self._warned: set[str] = set()

    @property
    def embedder(self) -> Any:
        """The model."""
        return getattr(self, self.held_as)

    @property
    def rewritten(self) -> bool:
        """True for a subclass with a `forward` of its own, which takes feature dicts alone."""
        return type(self).forward is not FeatureLoss.forward

    def forward(self, sentence_features: Any, labels: Tensor | None = None, guided: Any = ()) -> Any:
        """Return the loss of the tokens of each column, or of what the loss takes in `minisbert.losses`."""
        columns = list(sentence_features) if isinstance(sentence_features, Iterable) else []
        if columns and isinstance(columns[0], Mapping):
            return self.of_features(self._read(columns), labels)
        return self.of_given(self._read(columns) if columns else sentence_features, labels, guided)

    def of_features(self, columns: Sequence[Texts], labels: Tensor | None) -> Any:
        """Return the loss of the tokens of each column."""
        return self.compute_loss_from_embeddings([self.embed(texts) for texts in columns], labels)

    def of_given(self, given: Any, labels: Tensor | None, guided: Any) -> Any:
        """Return the loss of what a loss of `minisbert.losses` takes."""
        return self.compute_loss_from_embeddings(given, labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Any:
        """Return the loss of the embeddings of each column, (batch, dim)."""
        return self.computed(self._read(list(embeddings)), labels)

    def computed(self, *given: Any) -> Any:
        """Return what the loss of `minisbert.losses` computes."""
        return super().forward(*given)

    def embed(self, texts: Texts) -> Tensor:
        """Embed the tokens of a column: (texts, dim)."""
        embedded: Tensor = self.embedder(dict(texts))["sentence_embedding"]
        return embedded

    @property
    def citation(self) -> str:
        """BibTeX of the paper to cite; empty if there is none."""
        name = self.paper
        if name == type(self).__name__:  # which a user's own subclass may have another one than ours
            ours = (base for base in type(self).__mro__ if base.__module__.startswith(__package__))
            name = next(ours).__name__
        found = papers().get(name, "")
        return f"\n{found}\n" if found else ""

    def check_rows(self, texts: Sequence[str], labels: Labels | None) -> None:
        """Check that training rows fit, and warn of those that make little sense."""
        read = self.columns_read
        if read is not None and len(texts) > read:
            self.warn_once(
                f"got the text columns {list(texts)}; {type(self).__name__} reads the first {read}: the others are not "
                f"trained on"
            )
            texts = texts[:read]
        super().check_rows(texts, labels)
        if labels is not None and self.usual_labels is not None:
            self._check_range(min(labels), max(labels))

    def _check_range(self, low: float, high: float) -> None:
        least, most = self.usual_labels or (low, high)
        if low < least or high > most:
            self.warn_once(
                f"got labels from {low:g} to {high:g}; {type(self).__name__} expects {least:g} to {most:g}: divide them"
            )

    def _read(self, columns: list[Any]) -> list[Any]:
        return columns[: self.columns_read]

    def warn_once(self, message: str) -> None:
        """Warn of something, unless this loss has done so."""
        if message not in self._warned:
            self._warned.add(message)
            warn(message)


class CachedFeatureLoss(FeatureLoss):
    """Base of the losses with a gradient cache: they embed the texts of a batch in mini-batches, each twice.

    Attributes:
        uses_gradient_cache: True, or False if they embed the whole batch once.
    """

    uses_gradient_cache = True

    def embed(self, texts: Texts) -> Tensor:
        """Embed the tokens of a column in mini-batches: (texts, dim)."""
        if not self.uses_gradient_cache:
            return super().embed(texts)
        parts = mini_batches(texts, size=self.mini_batch_size, tokens=self.mini_batch_num_tokens)
        if len(parts) == 1:
            return super().embed(texts)
        device = texts["input_ids"].device
        return torch.cat([recomputed(partial(super(CachedFeatureLoss, self).embed, p), device=device) for p in parts])


# ---- tokens ---------------------------------------------------------------------------------------------------------


def mini_batches(texts: Texts, *, size: int, tokens: int | None) -> list[dict[str, Any]]:
    """Split the texts of a column, in order, by their number or by that of their tokens."""
    if "offsets" in texts:  # of a static model, whose tokens take no memory to speak of
        return [dict(texts)]
    mask = mask_of(texts)
    rows = len(mask)
    cuts = [*range(0, rows, size), rows]
    if tokens is not None:
        cuts, held = [0], 0
        for row, length in enumerate(mask.sum(dim=1).tolist()):
            if held and held + length > tokens:
                cuts.append(row)
                held = 0
            held += length
        cuts.append(rows)
    if len(cuts) == 2:
        return [dict(texts)]
    return [{name: _rows(value, rows, *ends) for name, value in texts.items()} for ends in pairwise(cuts)]


def _rows(value: Any, count: int, first: int, end: int) -> Any:
    of_each = isinstance(value, Tensor) and value.ndim > 0 and len(value) == count
    return value[first:end] if of_each else value


def mask_of(texts: Texts) -> Tensor:
    """Return True for the tokens that are not padding: (texts, length).

    Raises:
        InputError: there are no ids of tokens.
    """
    if not isinstance(texts.get("input_ids"), Tensor):
        raise InputError(f"got features with {list(texts)}; expected input_ids among them: tokenize the texts first")
    mask = texts.get("attention_mask")
    return torch.ones_like(texts["input_ids"], dtype=torch.bool) if mask is None else mask.bool()


def packed(texts: Texts) -> PackedBatch:
    """Pack the tokens of a column, without padding, on their device."""
    return Padding.of(texts, texts["input_ids"].device).batch
