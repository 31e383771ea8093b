"""What several test files share: random embeddings and texts, models without weights, and how results are compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minisbert.similarity import cos_sim, pairwise_cos_sim

WORDS = "the a cat dog sat on mat ran fast slow red blue sky sea tree one two three how what is why".split()
SIMILARITIES = ("cos_sim", "dot_score", "euclidean_sim", "manhattan_sim")
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")

# ---- embeddings -----------------------------------------------------------------------------------------------------


def vectors(rows: int, dim: int = 16, *, seed: int = 0, zero_row: int | None = None) -> np.ndarray:
    """Random float32 rows; one of them zero, if asked for."""
    values = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    if zero_row is not None:
        values[zero_row] = 0
    return values


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda values: values,
    "float64 array": lambda values: values.astype(np.float64),
    "float16 array": lambda values: values.astype(np.float16),
    "tensor": torch.from_numpy,
    "float64 tensor": lambda values: torch.from_numpy(values).double(),
    "float16 tensor": lambda values: torch.from_numpy(values).half(),
    "bfloat16 tensor": lambda values: torch.from_numpy(values).bfloat16(),
    "list of lists": lambda values: values.tolist(),
    "list of arrays": list,
    "list of tensors": lambda values: list(torch.from_numpy(values)),
    "list of bfloat16 tensors": lambda values: list(torch.from_numpy(values).bfloat16()),
}


def columns(count: int, rows: int, *, dim: int = 16, seed: int = 0) -> list[Tensor]:
    """Embeddings for a loss: float32 leaves with gradients, one for each text column."""
    draw = np.random.default_rng(seed)
    return [
        torch.tensor(draw.normal(size=(rows, dim)) * 0.4, dtype=torch.float32).requires_grad_() for _ in range(count)
    ]


# ---- texts and models -----------------------------------------------------------------------------------------------


def scored_pairs(count: int, *, seed: int = 0) -> tuple[list[str], list[str], list[float]]:
    """Random texts and scores."""
    draw = np.random.default_rng(seed)
    first, second = ([" ".join(draw.choice(WORDS, draw.integers(1, 12))) for _ in range(count)] for _ in range(2))
    return first, second, draw.random(count).round(3).tolist()


class Angles:
    """A model for which a text is an angle in degrees: similarity is the cosine of the difference."""

    device = torch.device("cpu")

    def encode_query(self, texts: list[str], **options: Any) -> Tensor:
        self.query_options = options
        return self.embed(texts)

    def encode_document(self, texts: list[str], **options: Any) -> Tensor:
        self.document_options = options
        return self.embed(texts)

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        return cos_sim(a, b)

    def similarity_pairwise(self, a: Tensor, b: Tensor) -> Tensor:
        return pairwise_cos_sim(a, b)

    def embed(self, texts: list[str]) -> Tensor:
        angles = torch.tensor([math.radians(float(text)) for text in texts], dtype=torch.float64)
        return torch.stack([angles.cos(), angles.sin()], dim=1).float()


# ---- results --------------------------------------------------------------------------------------------------------


def difference(got: Any, expected: Any) -> float:
    """Largest absolute difference of two things of one shape, none of it NaN."""
    left, right = (
        np.asarray(values.detach().double() if isinstance(values, Tensor) else values, np.float64)
        for values in (got, expected)
    )
    assert left.shape == right.shape
    largest = float(np.abs(left - right).max(initial=0))
    assert not math.isnan(largest)
    return largest


def value_and_gradients(
    loss: Callable[[list[Tensor]], Tensor], parts: Sequence[Tensor]
) -> tuple[float, list[np.ndarray]]:
    """The loss of fresh copies of `parts` and its gradient for each."""
    copies = [part.detach().clone().requires_grad_() for part in parts]
    value = loss(copies)
    assert value.shape == ()
    assert value.dtype == torch.float32
    value.backward()
    gradients = [copy.grad for copy in copies]
    assert all(gradient is not None for gradient in gradients)
    return value.item(), [gradient.numpy() for gradient in gradients if gradient is not None]


def as_tuples(hits: Any) -> list[list[tuple[int, float]]]:
    """What `semantic_search` returns, as pairs of a row of the corpus and its score."""
    return [[(hit["corpus_id"], hit["score"]) for hit in row] for row in hits]


# ---- the C++ kernels ------------------------------------------------------------------------------------------------


def forget_the_level() -> None:
    """Let the next use read MINISBERT_ISA again."""
    from minisbert.kernels import library

    library.functions.cache_clear()
    library.level.cache_clear()
