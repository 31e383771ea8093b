"""Losses that rank each anchor's own positive above the other texts of the batch."""

from __future__ import annotations

from typing import Any

from ... import losses
from ...losses.ranking import PLAIN, Direction, HardnessMode, PartitionMode
from ...similarity import SimilarityMatrix, cos_sim
from .features import CachedFeatureLoss, FeatureLoss


class _Ranking(FeatureLoss):
    """Base of the losses that scale similarities."""

    scale: float

    @property
    def temperature(self) -> float:
        """The inverse of the scale."""
        return 1.0 / self.scale


class MultipleNegativesRankingLoss(_Ranking, losses.MultipleNegativesRankingLoss):
    """`minisbert.losses.MultipleNegativesRankingLoss` that holds the model.

    Args:
        model: embeds the texts.
        scale: multiplies the similarities.
        similarity_fct: all pairs, (n, d) and (m, d) to (n, m).
        gather_across_devices: with several processes, rank among the texts of all of them.
        directions: "query_to_doc", and any of "query_to_query", "doc_to_query" and "doc_to_doc".
        partition_mode: "joint", or "per_direction" for directions that hold the pair of anchor and positive.
        hardness_mode: the negatives that get more weight, or None.
        hardness_strength: how much more; not negative.
    """

    def __init__(
        self,
        model: Any,
        scale: float = 20.0,
        similarity_fct: SimilarityMatrix = cos_sim,
        gather_across_devices: bool = False,
        directions: tuple[Direction, ...] = PLAIN,
        partition_mode: PartitionMode = "joint",
        hardness_mode: HardnessMode | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        losses.MultipleNegativesRankingLoss.__init__(
            self,
            model,
            scale=scale,
            similarity_fct=similarity_fct,
            gather_across_devices=gather_across_devices,
            directions=directions,
            partition_mode=partition_mode,
            hardness_mode=hardness_mode,
            hardness_strength=hardness_strength,
        )
        self.hold(model)


class MultipleNegativesSymmetricRankingLoss(MultipleNegativesRankingLoss, losses.MultipleNegativesSymmetricRankingLoss):
    """`minisbert.losses.MultipleNegativesSymmetricRankingLoss` that holds the model.

    Args:
        model: embeds the texts.
        scale: multiplies the similarities.
        similarity_fct: all pairs, (n, d) and (m, d) to (n, m).
        gather_across_devices: with several processes, rank among the texts of all of them.
    """

    def __init__(
        self,
        model: Any,
        scale: float = 20.0,
        similarity_fct: SimilarityMatrix = cos_sim,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__(
            model,
            scale,
            similarity_fct,
            gather_across_devices,
            directions=("query_to_doc", "doc_to_query"),
            partition_mode="per_direction",
        )


class CachedMultipleNegativesRankingLoss(CachedFeatureLoss, _Ranking, losses.CachedMultipleNegativesRankingLoss):
    """`minisbert.losses.CachedMultipleNegativesRankingLoss` that holds the model.

    Args:
        model: embeds the texts.
        scale: multiplies the similarities.
        similarity_fct: all pairs, (n, d) and (m, d) to (n, m).
        mini_batch_size: texts that are embedded at a time, and rows in a tile of the matrix of all pairs.
        mini_batch_num_tokens: tokens that are embedded at a time; takes the place of `mini_batch_size` there.
        gather_across_devices: with several processes, rank among the texts of all of them.
        directions: see `MultipleNegativesRankingLoss`.
        partition_mode: see there.
        show_progress_bar: not used.
        hardness_mode: see there.
        hardness_strength: see there.
    """

    def __init__(
        self,
        model: Any,
        scale: float = 20.0,
        similarity_fct: SimilarityMatrix = cos_sim,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        directions: tuple[Direction, ...] = PLAIN,
        partition_mode: PartitionMode = "joint",
        show_progress_bar: bool = False,
        hardness_mode: HardnessMode | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        losses.CachedMultipleNegativesRankingLoss.__init__(
            self,
            model,
            scale=scale,
            similarity_fct=similarity_fct,
            mini_batch_size=mini_batch_size,
            mini_batch_num_tokens=mini_batch_num_tokens,
            gather_across_devices=gather_across_devices,
            directions=directions,
            partition_mode=partition_mode,
            hardness_mode=hardness_mode,
            hardness_strength=hardness_strength,
        )
        self.show_progress_bar = show_progress_bar
        self.hold(model)


class CachedMultipleNegativesSymmetricRankingLoss(
    CachedMultipleNegativesRankingLoss, losses.CachedMultipleNegativesSymmetricRankingLoss
):
    """`minisbert.losses.CachedMultipleNegativesSymmetricRankingLoss` that holds the model.

    Args:
        model: embeds the texts.
        scale: multiplies the similarities.
        similarity_fct: all pairs, (n, d) and (m, d) to (n, m).
        mini_batch_size: see `CachedMultipleNegativesRankingLoss`.
        mini_batch_num_tokens: see there.
        gather_across_devices: with several processes, rank among the texts of all of them.
        show_progress_bar: not used.
    """

    def __init__(
        self,
        model: Any,
        scale: float = 20.0,
        similarity_fct: SimilarityMatrix = cos_sim,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(
            model,
            scale,
            similarity_fct,
            mini_batch_size,
            mini_batch_num_tokens,
            gather_across_devices,
            directions=("query_to_doc", "doc_to_query"),
            partition_mode="per_direction",
            show_progress_bar=show_progress_bar,
        )


class MegaBatchMarginLoss(CachedFeatureLoss, losses.MegaBatchMarginLoss):
    """`minisbert.losses.MegaBatchMarginLoss` that holds the model.

    Args:
        model: embeds the texts.
        positive_margin: least similarity of a pair.
        negative_margin: largest similarity of an anchor and another positive.
        use_mini_batched_version: look for the hardest positives in `mini_batch_size` anchors at a time, and embed as
            many texts at a time, twice each.
        mini_batch_size: see above.
        mini_batch_num_tokens: tokens that are embedded at a time.
        show_progress_bar: not used.
    """

    def __init__(
        self,
        model: Any,
        positive_margin: float = 0.8,
        negative_margin: float = 0.3,
        use_mini_batched_version: bool = True,
        mini_batch_size: int = 50,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(
            model,
            positive_margin=positive_margin,
            negative_margin=negative_margin,
            use_mini_batched_version=use_mini_batched_version,
            mini_batch_size=mini_batch_size,
            mini_batch_num_tokens=mini_batch_num_tokens,
        )
        self.show_progress_bar = show_progress_bar
        self.uses_gradient_cache = use_mini_batched_version
        self.hold(model)
