"""Losses that need more than the embeddings of a model: a guide, a copy of the model, or a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ... import losses
from ...data.loaders import ContrastiveTensionDataLoader as _Loader
from ...losses.guided import MarginStrategy
from ...similarity import SimilarityMatrix, cos_sim
from .features import CachedFeatureLoss, FeatureLoss, Texts, mask_of, mini_batches, packed


class _Guided(FeatureLoss):
    """Base of the losses with a guide, which embeds every column too."""

    model: Any
    temperature: float

    def of_features(self, columns: Sequence[Texts], labels: Tensor | None) -> Any:
        """Return the loss of the tokens of each column."""
        return self.computed(*self.judged_columns(columns, labels))

    def judged_columns(self, columns: Sequence[Texts], labels: Tensor | None) -> tuple[Any, Tensor | None, Any]:
        """Return the embeddings of each column by the model, the labels, and the embeddings by the guide."""
        ours = [self.embed(texts) for texts in columns]
        return ours, labels, [self.judge(texts) for texts in columns]

    def of_given(self, given: Any, labels: Tensor | None, guided: Sequence[Tensor]) -> Any:
        """Return the loss of embeddings by the model and by the guide."""
        return self.computed(given, labels, guided)

    @property
    def must_retokenize(self) -> bool:
        """True if the guide reads other tokens than the model, or fewer of them."""
        ours, theirs, guide = self.model.tokenizer, self.guide.tokenizer, self.guide
        return bool(ours.get_vocab() != theirs.get_vocab() or guide.max_seq_length < self.model.max_seq_length)

    def judge(self, texts: Texts) -> Tensor:
        """Embed the tokens of a column with the guide, without gradients: (texts, size)."""
        guide, device = self.guide, texts["input_ids"].device
        if next(guide.parameters()).device != device:
            guide.to(device)
        if self.must_retokenize:
            words = self.model.tokenizer.batch_decode(texts["input_ids"], skip_special_tokens=True)
            texts = {
                name: value.to(device) if isinstance(value, Tensor) else value
                for name, value in guide.tokenize(words).items()
            }
        with torch.no_grad():
            judged: Tensor = guide(dict(texts))["sentence_embedding"]
        return judged

    def sim_matrix(self, embed1: Tensor, embed2: Tensor) -> Tensor:
        """Return the cosines of all pairs, (n, d) and (m, d) to (n, m)."""
        return torch.cosine_similarity(embed1[:, None], embed2[None], dim=-1)

    @property
    def guide(self) -> Any:
        """The other model."""
        return super().guide


class GISTEmbedLoss(_Guided, losses.GISTEmbedLoss):
    """`minisbert.losses.GISTEmbedLoss` that holds the model.

    Args:
        model: embeds the texts.
        guide: the other model; it is neither trained nor saved, and no module of the loss.
        temperature: divides the cosines.
        margin_strategy: "absolute" or "relative".
        margin: by how much less similar than the positive a negative has to be.
        contrast_anchors: anchors are candidates.
        contrast_positives: positives are candidates for the positive.
        gather_across_devices: with several processes, the texts of all of them are candidates.
    """

    def __init__(
        self,
        model: Any,
        guide: Any,
        temperature: float = 0.01,
        margin_strategy: MarginStrategy = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__(
            model,
            guide,
            temperature=temperature,
            margin_strategy=margin_strategy,
            margin=margin,
            contrast_anchors=contrast_anchors,
            contrast_positives=contrast_positives,
            gather_across_devices=gather_across_devices,
        )
        self.hold(model)


class CachedGISTEmbedLoss(CachedFeatureLoss, _Guided, losses.CachedGISTEmbedLoss):
    """`minisbert.losses.CachedGISTEmbedLoss` that holds the model, for any number of negatives.

    Args:
        model: embeds the texts.
        guide: the other model; it is neither trained nor saved, and no module of the loss.
        temperature: divides the cosines.
        mini_batch_size: texts that are embedded at a time, and most rows in a tile of the matrix of all pairs.
        mini_batch_num_tokens: tokens that are embedded at a time; takes the place of `mini_batch_size` there.
        show_progress_bar: not used.
        margin_strategy: "absolute" or "relative".
        margin: by how much less similar than the positive a negative has to be.
        contrast_anchors: anchors are candidates.
        contrast_positives: positives are candidates for the positive.
        gather_across_devices: with several processes, the texts of all of them are candidates.
    """

    max_columns: int | None = None  # type: ignore[assignment]

    def __init__(
        self,
        model: Any,
        guide: Any,
        temperature: float = 0.01,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
        margin_strategy: MarginStrategy = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        gather_across_devices: bool = False,
    ) -> None:
        losses.CachedGISTEmbedLoss.__init__(
            self,
            model,
            guide,
            temperature=temperature,
            mini_batch_size=mini_batch_size,
            mini_batch_num_tokens=mini_batch_num_tokens,
            margin_strategy=margin_strategy,
            margin=margin,
            contrast_anchors=contrast_anchors,
            contrast_positives=contrast_positives,
            gather_across_devices=gather_across_devices,
        )
        self.show_progress_bar = show_progress_bar
        self.hold(model)

    def judge(self, texts: Texts) -> Tensor:
        """Embed the tokens of a column with the guide in mini-batches: (texts, size)."""
        parts = mini_batches(texts, size=self.mini_batch_size, tokens=self.mini_batch_num_tokens)
        return torch.cat([super(CachedGISTEmbedLoss, self).judge(part) for part in parts])


class ContrastiveTensionLoss(FeatureLoss, losses.ContrastiveTensionLoss):
    """`minisbert.losses.ContrastiveTensionLoss` that holds the model.

    Args:
        model: the model to train, which is copied.

    Attributes:
        model1: the copy, which embeds the first texts.
        model2: the model, which embeds the second texts.
    """

    held_as = "model2"

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.hold(model)

    @property
    def model1(self) -> Any:
        """The copy."""
        return self.copied

    def of_features(self, columns: Sequence[Texts], labels: Tensor | None) -> Any:
        """Return the loss of the tokens of two columns; without labels, texts of equal tokens are the same."""
        if len(columns) != 2:
            return self.computed([self.embed(texts) for texts in columns], labels)
        first, second = columns
        if labels is None:
            tokens = [
                [ids[kept].tolist() for ids, kept in zip(one["input_ids"], mask_of(one), strict=True)]
                for one in columns
            ]
            labels = torch.tensor(
                [float(a == b) for a, b in zip(*tokens, strict=True)], device=second["input_ids"].device
            )
        return self.computed([self.copied(dict(first))["sentence_embedding"], self.embed(second)], labels)


class ContrastiveTensionLossInBatchNegatives(FeatureLoss, losses.ContrastiveTensionLossInBatchNegatives):
    """`minisbert.losses.ContrastiveTensionLossInBatchNegatives` that holds the model.

    Args:
        model: the model to train, which is copied.
        scale: multiplies the similarities; it is trained, by its logarithm.
        similarity_fct: all pairs, (n, d) and (m, d) to (n, m).

    Attributes:
        model1: the copy.
        model2: the model.
    """

    held_as = "model2"
    columns_read = 1

    def __init__(self, model: Any, scale: float = 20.0, similarity_fct: SimilarityMatrix = cos_sim) -> None:
        super().__init__(model, scale=scale, similarity_fct=similarity_fct)
        self.hold(model)

    @property
    def model1(self) -> Any:
        """The copy."""
        return self.copied

    def of_features(self, columns: Sequence[Texts], labels: Tensor | None) -> Any:
        """Return the loss of the tokens of the first column."""
        texts = columns[0]
        return self.computed([self.embed(texts)], None, [self.copied(dict(texts))["sentence_embedding"]])

    def of_given(self, given: Any, labels: Tensor | None, guided: Sequence[Tensor]) -> Any:
        """Return the loss of embeddings by the model and by the copy."""
        return self.computed(given, labels, guided[:1])


class ContrastiveTensionDataLoader(_Loader):
    """`minisbert.losses.ContrastiveTensionDataLoader` that shuffles the list it is given.

    Args:
        sentences: the texts; shuffled with Python's `random` at the start of each pass.
        batch_size: pairs in a batch.
        pos_neg_ratio: of so many pairs, one is a text twice, labelled 1; the others are labelled 0.
    """

    def __init__(self, sentences: Any, batch_size: int, pos_neg_ratio: int = 8) -> None:
        super().__init__(sentences, batch_size, pos_neg_ratio)
        self.sentences = sentences


class DenoisingAutoEncoderLoss(FeatureLoss, losses.DenoisingAutoEncoderLoss):
    """`minisbert.losses.DenoisingAutoEncoderLoss` that holds the model.

    Args:
        model: the model to train.
        decoder_name_or_path: folder or name of the pretrained decoder; not used if weights are tied.
        tie_encoder_decoder: the decoder is of the model's own kind, and shares all weights that both have.

    Attributes:
        encoder: the model.
    """

    held_as = "encoder"

    def __init__(self, model: Any, decoder_name_or_path: str | None = None, tie_encoder_decoder: bool = True) -> None:
        super().__init__(model, decoder_name_or_path, tie_encoder_decoder)
        self.hold(model)
        self.decoder.to(getattr(model, "device", None))

    def retokenize(self, sentence_features: Texts) -> dict[str, Tensor]:
        """Return a column of texts in the tokens of the decoder, padded."""
        read, write = self._tokenizers
        ids = sentence_features["input_ids"]
        words = read.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True)
        written = write(words, padding=True, truncation="longest_first", return_tensors="pt", max_length=None)
        return {name: tensor.to(ids.device) for name, tensor in written.items()}

    def of_features(self, columns: Sequence[Texts], labels: Tensor | None) -> Any:
        """Return the loss of the tokens of damaged texts and of the texts."""
        damaged, *whole = columns
        return self.computed([self.embed(damaged)], None, [packed(texts) for texts in whole])

    def of_given(self, given: Any, labels: Tensor | None, guided: Any) -> Any:
        """Return the loss of the embeddings of damaged texts, and the packed texts."""
        return self.computed(given, labels, guided)
