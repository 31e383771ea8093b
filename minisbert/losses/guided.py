"""Ranking with a guide: another model says which texts of the batch are no negatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, InputError, check_flag
from .base import Loss, aligned, check_choice, check_number, check_positive

MarginStrategy: TypeAlias = Literal["absolute", "relative"]


class GISTEmbedLoss(Loss):
    """Cross entropy of each anchor's positive among the texts of the batch that a guide takes for negatives.

    Columns are (anchor, positive) or (anchor, positive, negative); labels are ignored. Candidates of anchor i are all
    positives and all negatives, the anchors by their similarity to it, and the positives by their similarity to its
    positive; scores are cosines divided by the temperature. With g the guide's similarity of anchor i and its positive,
    candidates that the guide takes for more similar than `g - margin` ("absolute") or `g - |g| * margin` ("relative")
    are left out (Solatorio 2024, https://arxiv.org/abs/2402.16829).

    Args:
        model: not used; accepted because code for the reference passes it.
        guide: the other model, a SentenceTransformer. It has its own tokenizer, and is neither trained nor saved.
        temperature: see above.
        margin_strategy: see above.
        margin: see above.
        contrast_anchors: anchors are candidates.
        contrast_positives: positives are candidates for the positive.
        gather_across_devices: with several processes, the texts of all of them are candidates.

    Raises:
        ConfigError: the guide is no model, the temperature is not positive, or an option is not valid.
    """

    max_columns = 3

    def __init__(
        self,
        model: object,
        guide: nn.Module,
        *,
        temperature: float = 0.01,
        margin_strategy: MarginStrategy = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__()
        self.gather_across_devices = check_flag(gather_across_devices, "gather_across_devices")
        if not isinstance(guide, nn.Module):
            raise ConfigError(f"got the guide {type(guide).__name__}; expected a model: pass a SentenceTransformer")
        self._guide = (guide,)  # in a tuple, since a module of the loss would be trained with it
        self.temperature = check_positive(temperature, "temperature")
        check_choice(margin_strategy, "margin_strategy", get_args(MarginStrategy))
        self.margin_strategy, self.margin = margin_strategy, check_number(margin, "margin")
        self.contrast_anchors, self.contrast_positives = contrast_anchors, contrast_positives

    @property
    def guide(self) -> nn.Module:
        """The other model."""
        return self._guide[0]

    def forward(
        self, embeddings: Sequence[Tensor], labels: Tensor | None = None, guided: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return the loss of two or three (batch, dim) tensors and as many of the guide, (batch, size), a scalar."""
        ours, theirs = self.judged(embeddings, guided)
        targets = torch.arange(len(embeddings[0]), device=ours[0].device)
        return F.cross_entropy(self.scores(ours, theirs, slice(len(targets))), targets)

    def judged(self, embeddings: Sequence[Tensor], guided: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the embeddings of both models in float32, after checking their number and rows.

        If the loss gathers, the rows of the other processes follow.
        """
        ours, name = self.columns(embeddings), type(self).__name__
        if len(guided) != len(embeddings) or any(len(part) != len(ours[0]) for part in guided):
            raise InputError(
                f"got embeddings of the guide for {[len(part) for part in guided]} rows; {name} expects "
                f"{[len(ours[0])] * len(embeddings)}: pass them as third argument"
            )
        return self.gathered(ours), self.gathered(aligned(guided, loss=name))

    def scores(self, ours: Sequence[Tensor], theirs: Sequence[Tensor], rows: slice = slice(None)) -> Tensor:
        """Return the scores of all candidates of some rows, (rows, candidates); -inf for those that are left out.

        The positives come first, so that the right candidate of a row has its number.

        Args:
            ours: embeddings of the model, (batch, dim) each.
            theirs: those of the guide, (batch, size) each.
            rows: those to compute, all by default.
        """
        anchors, positives, *negatives = ours
        their_anchors, their_positives, *their_negatives = theirs
        batch = torch.arange(len(anchors), device=anchors.device)
        own = batch[rows, None] == batch
        judged = _cosines(their_anchors[rows], their_positives)
        least = self.least(judged.diagonal(range(len(anchors))[rows].start))

        def kept(scores: Tensor, judged: Tensor) -> Tensor:
            return scores.masked_fill(judged > least[:, None], -torch.inf)

        scores = [_cosines(anchors[rows], positives).masked_fill((judged > least[:, None]) & ~own, -torch.inf)]
        if self.contrast_anchors:
            scores.append(kept(_cosines(anchors[rows], anchors), _cosines(their_anchors[rows], their_anchors)))
        if self.contrast_positives:
            scores.append(kept(_cosines(positives[rows], positives), _cosines(their_positives[rows], their_positives)))
        for our, their in zip(negatives, their_negatives, strict=True):
            scores.append(kept(_cosines(anchors[rows], our), _cosines(their_anchors[rows], their)))
        return torch.cat(scores, dim=1) / self.temperature

    def least(self, right: Tensor) -> Tensor:
        """Return the similarity above which a candidate is left out, from those of the anchors and positives."""
        return right - (self.margin if self.margin_strategy == "absolute" else right.abs() * self.margin)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the guide and all settings."""
        return {
            "guide": self.guide,
            "temperature": self.temperature,
            "margin_strategy": self.margin_strategy,
            "margin": self.margin,
            "contrast_anchors": self.contrast_anchors,
            "contrast_positives": self.contrast_positives,
            "gather_across_devices": self.gather_across_devices,
        }


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosines of all pairs, (n, d) and (m, d) to (n, m).

    Each is computed by itself, so that equal pairs have equal cosines: a product of matrices may round them otherwise,
    and a text would then be a negative beside its own duplicate. It takes memory for n * m * d numbers.
    """
    return F.cosine_similarity(a[:, None], b[None], dim=-1)
