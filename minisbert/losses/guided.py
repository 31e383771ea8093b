"""Ranking with a guide: another model says which texts of the batch are no negatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, InputError
from .base import Loss, aligned, check_choice, check_number, check_one_process, check_positive

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
        gather_across_devices: must be False.

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
        check_one_process(gather_across_devices)
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
        anchors, positives, *negatives = self.columns(embeddings)
        if len(guided) != len(embeddings) or any(len(part) != len(anchors) for part in guided):
            raise InputError(
                f"got embeddings of the guide for {[len(part) for part in guided]} rows; {type(self).__name__} expects "
                f"{[len(anchors)] * len(embeddings)}: pass them as third argument"
            )
        their_anchors, their_positives, *their_negatives = aligned(guided, loss=type(self).__name__)
        own = torch.eye(len(anchors), dtype=torch.bool, device=anchors.device)
        judged = _cosines(their_anchors, their_positives)
        right = judged.diagonal()
        least = right - (self.margin if self.margin_strategy == "absolute" else right.abs() * self.margin)

        def kept(scores: Tensor, judged: Tensor) -> Tensor:
            return scores.masked_fill(judged > least[:, None], -torch.inf)

        scores = [_cosines(anchors, positives).masked_fill((judged > least[:, None]) & ~own, -torch.inf)]
        if self.contrast_anchors:
            scores.append(kept(_cosines(anchors, anchors), _cosines(their_anchors, their_anchors)))
        if self.contrast_positives:
            scores.append(kept(_cosines(positives, positives), _cosines(their_positives, their_positives)))
        for ours, theirs in zip(negatives, their_negatives, strict=True):
            scores.append(kept(_cosines(anchors, ours), _cosines(their_anchors, theirs)))
        targets = torch.arange(len(anchors), device=anchors.device)
        return F.cross_entropy(torch.cat(scores, dim=1) / self.temperature, targets)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the guide and all settings."""
        return {
            "guide": self.guide,
            "temperature": self.temperature,
            "margin_strategy": self.margin_strategy,
            "margin": self.margin,
            "contrast_anchors": self.contrast_anchors,
            "contrast_positives": self.contrast_positives,
            "gather_across_devices": False,
        }


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosines of all pairs, (n, d) and (m, d) to (n, m).

    Each is computed by itself, so that equal pairs have equal cosines: a product of matrices may round them otherwise,
    and a text would then be a negative beside its own duplicate. It takes memory for n * m * d numbers.
    """
    return F.cosine_similarity(a[:, None], b[None], dim=-1)
