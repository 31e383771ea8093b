"""Ranking of each anchor's own positive above the other texts of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from .. import kernels
from ..errors import ConfigError, InputError, check_count, check_flag, warn
from ..similarity import SimilarityMatrix, cos_sim, dot_score, normalize_embeddings
from .base import (
    Loss,
    aligned,
    check_callable,
    check_choice,
    check_number,
    check_positive,
    function_name,
)

Direction: TypeAlias = Literal["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]
PartitionMode: TypeAlias = Literal["joint", "per_direction"]
HardnessMode: TypeAlias = Literal["in_batch_negatives", "hard_negatives", "all_negatives"]
PLAIN: tuple[Direction, ...] = ("query_to_doc",)
BOTH: tuple[Direction, ...] = ("query_to_doc", "doc_to_query")


class MultipleNegativesRankingLoss(Loss):
    """Cross entropy of each anchor's positive among every positive and hard negative of the batch (InfoNCE).

    Columns are (anchor, positive) and then any number of hard negatives; labels are ignored. With s the scaled
    similarities of anchor i to all candidates, the loss is the mean over i of `-(s[own positive] - logsumexp(s))`
    (Henderson et al. 2017; van den Oord et al. 2018).

    `directions` adds candidates, below "query" for the anchors, "doc" for positives and negatives: the other queries of
    query i, all queries for its positive, and all docs of other queries for its positive. With `partition_mode="joint"`
    one logsumexp runs over the candidates of all directions (Li et al. 2023); with "per_direction" the logsumexp of
    each direction is averaged (Günther et al. 2024).

    `hardness_mode` adds `hardness_strength` times the unscaled similarity, as a constant without gradient, to the
    scores of negatives from query to doc: of the docs of other queries ("in_batch_negatives", Lan et al. 2025), of the
    own hard negatives ("hard_negatives", Schechter Vera et al. 2025), or of both ("all_negatives").

    Args:
        model: not used; accepted because code for the reference passes it.
        scale: multiplies the similarities, the inverse of a temperature.
        similarity_fct: all pairs, (n, d) and (m, d) to (n, m): `util.cos_sim` or `util.dot_score`.
        gather_across_devices: with several processes, rank among the texts of all of them.
        directions: "query_to_doc", and any of "query_to_query", "doc_to_query" and "doc_to_doc".
        partition_mode: "joint", or "per_direction" for directions that hold the pair of anchor and positive.
        hardness_mode: see above; None for none.
        hardness_strength: see above; not negative.

    Raises:
        ConfigError: the scale is not positive, the strength is negative, or a name is unknown or does not fit.
    """

    def __init__(
        self,
        model: object = None,
        *,
        scale: float = 20.0,
        similarity_fct: SimilarityMatrix = cos_sim,
        gather_across_devices: bool = False,
        directions: Sequence[Direction] = PLAIN,
        partition_mode: PartitionMode = "joint",
        hardness_mode: HardnessMode | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        super().__init__()
        self.gather_across_devices = check_flag(gather_across_devices, "gather_across_devices")
        self.scale = check_positive(scale, "scale")
        self.similarity_fct = check_callable(similarity_fct, "similarity_fct", "util.cos_sim")
        self.directions = _directions(directions, partition_mode)
        self.partition_mode = partition_mode
        self.hardness_mode = hardness_mode
        self.hardness_strength = _strength(hardness_mode, hardness_strength)
        self.recordable = self.is_plain and similarity_fct in (cos_sim, dot_score)

    @property
    def is_plain(self) -> bool:
        """True if anchors are compared with docs only, and no negative counts more than others."""
        return self.directions == PLAIN and (self.hardness_mode is None or self.hardness_strength == 0)

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the loss of two or more (batch, dim) tensors, a scalar."""
        anchors, texts = self.ranked(embeddings)
        own = slice(len(embeddings[0]))  # the rows of other processes follow
        if (value := self.streamed(anchors[own], texts)) is not None:
            return value
        if not self.is_plain:
            return self.rank_all(anchors, texts, own).mean()
        return self.rank(self.similarity_fct(anchors[own], texts) * self.scale)  # of (batch, rows * candidates)

    def ranked(self, embeddings: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the anchors, (rows, dim), and all positives and negatives, (rows * candidates, dim).

        The rows are those of the batch, and if the loss gathers those of the other processes after them.
        """
        name = type(self).__name__
        if len(embeddings) < 2:
            raise InputError(f"got {len(embeddings)} text column(s); {name} expects at least 2: anchor, positive")
        anchors, *candidates = self.gathered(aligned(embeddings, loss=name))
        return anchors, torch.cat(candidates)

    def streamed(self, anchors: Tensor, texts: Tensor) -> Tensor | None:
        """Return the loss, computed by a kernel that makes no matrix of all pairs, or None if there is none for it."""
        streaming = kernels.contrastive(anchors, texts) if self.is_plain and self.similarity_fct is cos_sim else None
        return streaming(anchors, texts, scale=self.scale) if streaming is not None else None

    def rank(self, scores: Tensor) -> Tensor:
        """Return the loss of scaled similarities, (batch, candidates), with each anchor's positive on the diagonal."""
        return -(scores.diagonal() - scores.logsumexp(dim=1)).mean()

    def rank_all(self, queries: Tensor, docs: Tensor, rows: slice = slice(None)) -> Tensor:
        """Return the loss of each of some rows, over all directions.

        Args:
            queries: (batch, dim).
            docs: positives, and then negatives, (batch * candidates, dim).
            rows: those to compute, all by default.
        """
        batch = len(queries)
        some, positives, chosen = queries[rows], docs[:batch][rows], range(batch)[rows]
        owners = torch.arange(len(docs), device=docs.device) % batch  # the query of each doc
        own = owners == torch.arange(batch, device=docs.device)[rows, None]  # (rows, batch * candidates)
        similarities = self.similarity_fct(some, docs)
        scores = {"query_to_doc": similarities * self.scale}
        right = scores["query_to_doc"].diagonal(chosen.start)
        if self.hardness_mode is not None and self.hardness_strength:
            penalized = ~own if self.hardness_mode != "hard_negatives" else torch.zeros_like(own)
            if self.hardness_mode != "in_batch_negatives":
                penalized[:, batch:] |= own[:, batch:]
            penalty = self.hardness_strength * similarities.detach()
            scores["query_to_doc"] = scores["query_to_doc"] + penalty * penalized
        if "query_to_query" in self.directions:
            others = self.similarity_fct(some, queries) * self.scale
            scores["query_to_query"] = others.masked_fill(own[:, :batch], -torch.inf)
        if "doc_to_query" in self.directions:
            scores["doc_to_query"] = self.similarity_fct(queries, positives).T * self.scale
        if "doc_to_doc" in self.directions:
            others = self.similarity_fct(docs, positives).T * self.scale
            scores["doc_to_doc"] = others.masked_fill(own, -torch.inf)
        if self.partition_mode == "joint":
            total = torch.cat(list(scores.values()), dim=1).logsumexp(dim=1)
        else:
            total = torch.stack([part.logsumexp(dim=1) for part in scores.values()]).mean(dim=0)
        return total - right

    @property
    def paper(self) -> str:
        """The name of the paper to cite, which differs with the directions."""
        if set(self.directions) == set(BOTH) and self.partition_mode == "per_direction":
            return "MultipleNegativesSymmetricRankingLoss"
        if set(self.directions) == set(get_args(Direction)):
            return "MultipleNegativesRankingLoss in all directions"
        return "MultipleNegativesRankingLoss"

    def get_config_dict(self) -> dict[str, Any]:
        """Return all settings."""
        return {
            "scale": self.scale,
            "similarity_fct": function_name(self.similarity_fct),
            "gather_across_devices": self.gather_across_devices,
            "directions": self.directions,
            "partition_mode": self.partition_mode,
            "hardness_mode": self.hardness_mode,
            "hardness_strength": self.hardness_strength,
        }


class MultipleNegativesSymmetricRankingLoss(MultipleNegativesRankingLoss):
    """The mean of ranking docs for each anchor and anchors for each positive.

    The reference deprecates this name; it is `MultipleNegativesRankingLoss(directions=("query_to_doc",
    "doc_to_query"), partition_mode="per_direction")`. Hard negatives count in the first ranking only.

    Args:
        model: not used; accepted because code for the reference passes it.
        scale: multiplies the similarities, the inverse of a temperature.
        similarity_fct: all pairs, (n, d) and (m, d) to (n, m): `util.cos_sim` or `util.dot_score`.
        gather_across_devices: with several processes, rank among the texts of all of them.

    Raises:
        ConfigError: the scale is not positive.
    """

    def __init__(
        self,
        model: object = None,
        *,
        scale: float = 20.0,
        similarity_fct: SimilarityMatrix = cos_sim,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__(
            model,
            scale=scale,
            similarity_fct=similarity_fct,
            gather_across_devices=gather_across_devices,
            directions=BOTH,
            partition_mode="per_direction",
        )


def _directions(directions: Sequence[Direction], mode: PartitionMode) -> tuple[Direction, ...]:
    known = get_args(Direction)
    check_choice(mode, "partition_mode", get_args(PartitionMode))
    if not isinstance(directions, (list, tuple)) or not directions or not all(name in known for name in directions):
        raise ConfigError(f"got directions={directions!r}; expected a tuple with some of {', '.join(known)}")
    if "query_to_doc" not in directions:
        raise ConfigError(f"got directions={tuple(directions)!r}; expected query_to_doc among them: add it")
    unpaired = [name for name in directions if name in ("query_to_query", "doc_to_doc")]
    if mode == "per_direction" and unpaired:
        raise ConfigError(
            f"got partition_mode='per_direction' with {' and '.join(unpaired)}, whose candidates do not include the "
            f"positive; expected 'joint': change one of them"
        )
    return tuple(directions)


def _strength(mode: HardnessMode | None, strength: float) -> float:
    if mode is not None:
        check_choice(mode, "hardness_mode", get_args(HardnessMode))
        if strength == 0:
            warn(f"got hardness_mode={mode!r} with hardness_strength=0, which has no effect: pass a positive strength")
    if check_number(strength, "hardness_strength") < 0:
        raise ConfigError(f"got hardness_strength={strength!r}; expected 0 or more")
    return strength


class MegaBatchMarginLoss(Loss):
    """`relu(positive_margin - cos(a, p)) + relu(max(cos(a, p')) - negative_margin)`, the mean over the batch.

    Columns are (anchor, positive); p' are the positives of other rows, of which only the hardest counts. It takes large
    batches (Wieting and Gimpel 2018, https://aclanthology.org/P18-1042).

    Args:
        model: not used; accepted because code for the reference passes it.
        positive_margin: least similarity of a pair.
        negative_margin: largest similarity of an anchor and another positive.
        use_mini_batched_version: look for the hardest positives in `mini_batch_size` anchors at a time, with the same
            result in less memory. Texts are embedded once in both ways.
        mini_batch_size: see above.
        mini_batch_num_tokens: not used; for the model card.
        show_progress_bar: not used; accepted because code for the reference passes it.

    Raises:
        ConfigError: an option is not a number.
    """

    max_columns = 2

    def __init__(
        self,
        model: object = None,
        *,
        positive_margin: float = 0.8,
        negative_margin: float = 0.3,
        use_mini_batched_version: bool = True,
        mini_batch_size: int = 50,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__()
        self.positive_margin = check_number(positive_margin, "positive_margin")
        self.negative_margin = check_number(negative_margin, "negative_margin")
        self.use_mini_batched_version = use_mini_batched_version
        self.mini_batch_size, self.mini_batch_num_tokens = check_count(mini_batch_size, "mini_batch_size"), None
        if mini_batch_num_tokens is not None:
            self.mini_batch_num_tokens = check_count(mini_batch_num_tokens, "mini_batch_num_tokens")

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the loss of two (batch, dim) tensors, a scalar."""
        anchors, positives = map(normalize_embeddings, self.columns(embeddings))
        own = (anchors * positives).sum(dim=1)
        losses = (self.positive_margin - own).relu()
        if len(anchors) > 1:
            hardest = positives[self._hardest(anchors.detach(), positives.detach())]
            losses = losses + ((anchors * hardest).sum(dim=1) - self.negative_margin).relu()
        return losses.mean()

    def _hardest(self, anchors: Tensor, positives: Tensor) -> Tensor:
        """Return the row of the most similar positive of another row: (batch,)."""
        size = self.mini_batch_size if self.use_mini_batched_version else len(anchors)
        rows = []
        for start, part in zip(range(0, len(anchors), size), torch.split(anchors, size), strict=True):
            similarities = part @ positives.T
            similarities.diagonal(start).fill_(-torch.inf)
            rows.append(similarities.argmax(dim=1))
        return torch.cat(rows)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the margins and the sizes of mini-batches."""
        return {
            "positive_margin": self.positive_margin,
            "negative_margin": self.negative_margin,
            "mini_batch_size": self.mini_batch_size,
            "mini_batch_num_tokens": self.mini_batch_num_tokens,
        }
