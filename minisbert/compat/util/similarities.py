"""Similarities of embeddings, and their quantization, with the reference's arguments.

Those of all pairs are minisbert's own. Those row by row also take single vectors and shapes that broadcast.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ... import similarity
from ...similarity import Embeddings, Precision, SimilarityFunction, normalize_embeddings
from ...similarity import cos_sim as cos_sim
from ...similarity import dot_score as dot_score
from ...similarity import euclidean_sim as euclidean_sim
from ...similarity import manhattan_sim as manhattan_sim
from .tensors import float_tensor

logger = logging.getLogger(__name__)
_FEW = 100  # embeddings from which the ranges of integers are uncertain


def pytorch_cos_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Cosine similarities of all pairs: (n, d) and (m, d) to (n, m). The oldest name of `cos_sim`."""
    return cos_sim(a, b)


def pairwise_cos_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Cosine similarity of each row of `a` with the same row of `b`: (..., d) and (..., d) to (...)."""
    return (normalize_embeddings(float_tensor(a)) * normalize_embeddings(float_tensor(b))).sum(-1)


def pairwise_dot_score(a: Embeddings, b: Embeddings) -> Tensor:
    """Dot product of each row of `a` with the same row of `b`: (..., d) and (..., d) to (...)."""
    return (float_tensor(a) * float_tensor(b)).sum(-1)


def pairwise_manhattan_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative manhattan distance of each row of `a` from the same row of `b`: (..., d) and (..., d) to (...)."""
    return -(float_tensor(a) - float_tensor(b)).abs().sum(-1)


def pairwise_euclidean_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative euclidean distance of each row of `a` from the same row of `b`: (..., d) and (..., d) to (...)."""
    difference = float_tensor(a) - float_tensor(b)
    difference = difference if difference.is_floating_point() else difference.float()
    distance: Tensor = torch.linalg.vector_norm(difference, dim=-1)
    return -distance


def pairwise_angle_sim(x: Embeddings, y: Embeddings) -> Tensor:
    """Absolute AnglE similarity of each row of `x` and the same row of `y`: (n, d) and (n, d) to (n,)."""
    return similarity.pairwise_angle_sim(x, y)


def quantize_embeddings(
    embeddings: Embeddings,
    precision: Precision,
    ranges: NDArray[Any] | None = None,
    calibration_embeddings: NDArray[Any] | None = None,
) -> NDArray[Any] | list[NDArray[Any]]:
    """Quantize embeddings as `minisbert.util.quantize_embeddings` does, also one alone or a list of matrices.

    Args:
        embeddings: (n, d) or (d,) floats, or a list of matrices, which then share their ranges.
        precision: "float32", "int8", "uint8", "binary" or "ubinary".
        ranges: (2, d): smallest and largest value of each dimension, for "int8" and "uint8".
        calibration_embeddings: take the ranges from these; by default from `embeddings` themselves.

    Raises:
        ConfigError: the precision is unknown.
        InputError: the embeddings are integers, or the ranges would come from a single one.
    """
    integers = precision in ("int8", "uint8") and ranges is None and calibration_embeddings is None
    if isinstance(embeddings, list):
        if not embeddings:
            return []
        if getattr(embeddings[0], "ndim", 0) == 2:
            matrices = [np.asarray(float_tensor(matrix).detach().cpu()) for matrix in embeddings]
            shared = np.concatenate(matrices) if integers else calibration_embeddings
            if integers:
                notice_few(sum(map(len, matrices)), precision)
            return [np.asarray(quantize_embeddings(one, precision, ranges, shared)) for one in matrices]
    if integers and len(embeddings) and np.ndim(embeddings[0]) == 1:
        notice_few(len(embeddings), precision)
    options = {"ranges": ranges, "calibration_embeddings": calibration_embeddings}
    quantized = similarity.quantize_embeddings(embeddings, precision, **options)
    return quantized[0] if len(embeddings) and np.ndim(embeddings[0]) == 0 else quantized


def notice_few(count: int, precision: str) -> None:
    """Log a warning if the ranges of integers come from a small number of embeddings."""
    if 1 < count < _FEW:
        logger.warning(
            "got %d embeddings to take the ranges of %s from; expected at least %d, which show the range of each "
            "dimension: quantize more of them together, or pass ranges or calibration_embeddings of many",
            *(count, precision, _FEW),
        )


__all__ = [
    "SimilarityFunction",
    "cos_sim",
    "dot_score",
    "euclidean_sim",
    "manhattan_sim",
    "pairwise_angle_sim",
    "pairwise_cos_sim",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "pairwise_manhattan_sim",
    "pytorch_cos_sim",
    "quantize_embeddings",
]
