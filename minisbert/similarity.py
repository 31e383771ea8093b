"""Similarity of embeddings, and their smaller number formats.

The functions take tensors, arrays or lists; one vector counts as a matrix of one row. Half-precision input is raised
to float32 first. Euclidean and manhattan similarities are negative distances, so that more similar is always larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .errors import ConfigError, InputError, InputTypeError

Embeddings: TypeAlias = Tensor | NDArray[Any] | Sequence[Any]
SimilarityMatrix: TypeAlias = Callable[[Embeddings, Embeddings], Tensor]
AnyMatrix = TypeVar("AnyMatrix", Tensor, NDArray[Any])
Precision: TypeAlias = Literal["float32", "int8", "uint8", "binary", "ubinary"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


class SimilarityFunction(str, Enum):
    """The similarity functions a model can be saved with."""

    COSINE = "cosine"
    DOT_PRODUCT = "dot"
    DOT = "dot"
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"

    @classmethod
    def of(cls, name: str | SimilarityFunction) -> SimilarityFunction:
        """The function called `name`.

        Raises:
            ConfigError: there is none of that name.
        """
        try:
            return cls(name)
        except ValueError:
            expected = ", ".join(member.value for member in cls)
            raise ConfigError(f"got similarity function {name!r}; expected one of {expected}") from None

    @staticmethod
    def to_similarity_fn(name: str | SimilarityFunction) -> SimilarityMatrix:
        """`matrix` of the function called `name`."""
        return SimilarityFunction.of(name).matrix

    @staticmethod
    def to_similarity_pairwise_fn(name: str | SimilarityFunction) -> SimilarityMatrix:
        """`pairwise` of the function called `name`."""
        return SimilarityFunction.of(name).pairwise

    @staticmethod
    def possible_values() -> list[str]:
        """The names there are."""
        return [member.value for member in SimilarityFunction]

    @property
    def matrix(self) -> SimilarityMatrix:
        """Similarities of all pairs, (n, d) and (m, d) to (n, m)."""
        return _FUNCTIONS[self][0]

    @property
    def pairwise(self) -> SimilarityMatrix:
        """Similarities row by row, (n, d) and (n, d) to (n,)."""
        return _FUNCTIONS[self][1]


def cos_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Cosine similarities of all pairs: (n, d) and (m, d) to (n, m). A zero vector is similar to nothing."""
    left, right = _matrices(a, b)
    return normalize_embeddings(left) @ normalize_embeddings(right).T


def dot_score(a: Embeddings, b: Embeddings) -> Tensor:
    """Dot products of all pairs: (n, d) and (m, d) to (n, m)."""
    left, right = _matrices(a, b)
    return left @ right.T


def euclidean_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative euclidean distances of all pairs: (n, d) and (m, d) to (n, m)."""
    return -torch.cdist(*_matrices(a, b), p=2.0)


def manhattan_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative manhattan distances of all pairs: (n, d) and (m, d) to (n, m)."""
    return -torch.cdist(*_matrices(a, b), p=1.0)


def pairwise_cos_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Cosine similarity of each row of `a` with the same row of `b`: (n,)."""
    left, right = _matrices(a, b, same_rows=True)
    return (normalize_embeddings(left) * normalize_embeddings(right)).sum(-1)


def pairwise_dot_score(a: Embeddings, b: Embeddings) -> Tensor:
    """Dot product of each row of `a` with the same row of `b`: (n,)."""
    left, right = _matrices(a, b, same_rows=True)
    return (left * right).sum(-1)


def pairwise_euclidean_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative euclidean distance of each row of `a` from the same row of `b`: (n,)."""
    left, right = _matrices(a, b, same_rows=True)
    distances: Tensor = torch.linalg.vector_norm(left - right, dim=-1)
    return -distances


def pairwise_manhattan_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative manhattan distance of each row of `a` from the same row of `b`: (n,)."""
    left, right = _matrices(a, b, same_rows=True)
    return -(left - right).abs().sum(-1)


def pairwise_angle_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """How far the AnglE similarity of each row of `a` and the same row of `b` is from zero: (n,).

    The halves of a row are the real and imaginary parts of complex numbers (an odd dimension is filled up with a zero).
    The similarity is the sum of the real and imaginary parts of the product of one row, at length 1, with the
    conjugate of the other.
    """
    left, right = _matrices(a, b, same_rows=True)
    odd = left.shape[1] % 2
    left, right = (normalize_embeddings(F.pad(rows, (0, odd))) for rows in (left, right))
    (left_real, left_imaginary), (right_real, right_imaginary) = left.chunk(2, dim=1), right.chunk(2, dim=1)
    real = (left * right).sum(-1)
    imaginary = (left_imaginary * right_real - left_real * right_imaginary).sum(-1)
    return (real + imaginary).abs()


def truncate_embeddings(embeddings: AnyMatrix, truncate_dim: int | None) -> AnyMatrix:
    """The leading `truncate_dim` dimensions of an array or tensor, without a copy; all of them if it is None.

    Raises:
        ConfigError: `truncate_dim` is below 1.
        InputTypeError: the embeddings are in neither.
    """
    if not isinstance(embeddings, (Tensor, np.ndarray)):
        raise InputTypeError(f"got embeddings in a {type(embeddings).__name__}; expected an array or tensor: make one")
    if not embeddings.ndim:
        raise InputError("got one number; expected embeddings: pass an array or tensor of them")
    if truncate_dim is not None and (not isinstance(truncate_dim, (int, np.integer)) or truncate_dim < 1):
        raise ConfigError(f"got truncate_dim={truncate_dim!r}; expected at least 1, or None for all dimensions")
    return embeddings[..., :truncate_dim]


def normalize_embeddings(embeddings: Tensor) -> Tensor:
    """Scale the last dimension to length 1 (zero vectors stay zero)."""
    return F.normalize(embeddings, p=2.0, dim=-1)


_FUNCTIONS: dict[SimilarityFunction, tuple[SimilarityMatrix, SimilarityMatrix]] = {
    SimilarityFunction.COSINE: (cos_sim, pairwise_cos_sim),
    SimilarityFunction.DOT_PRODUCT: (dot_score, pairwise_dot_score),
    SimilarityFunction.EUCLIDEAN: (euclidean_sim, pairwise_euclidean_sim),
    SimilarityFunction.MANHATTAN: (manhattan_sim, pairwise_manhattan_sim),
}


def quantize_embeddings(
    embeddings: Embeddings,
    precision: Precision,
    *,
    ranges: NDArray[np.floating[Any]] | None = None,
    calibration_embeddings: Embeddings | None = None,
) -> NDArray[Any]:
    """Store embeddings in fewer bits.

    Args:
        embeddings: (n, d) floats.
        precision: "int8" and "uint8" cut each dimension into 256 equal steps between its smallest and largest value;
            "binary" and "ubinary" keep one bit per dimension (value > 0), eight to a byte; "float32" changes nothing.
        ranges: (2, d): smallest and largest value of each dimension, for "int8" and "uint8".
        calibration_embeddings: take the ranges from these; by default, from `embeddings` themselves.

    Returns:
        (n, d) of the named type, or (n, d / 8) for the binary ones ("binary" is int8, "ubinary" uint8).

    Raises:
        ConfigError: an unknown precision.
        InputError: dimensions that do not fill whole bytes, one embedding with nothing to take ranges from, numbers
            that are not finite, or ranges whose lowest values are above the highest.
    """
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ConfigError(f"got precision={precision!r}; expected float32, int8, uint8, binary or ubinary")
    values = _floats(embeddings)
    if precision == "float32":
        return values.astype(np.float32)
    _refuse_not_finite(values, "embeddings")
    if precision in ("binary", "ubinary"):
        if values.shape[-1] % 8:
            raise InputError(f"got {values.shape[-1]} dimensions; {precision} needs a multiple of 8: use truncate_dim")
        packed = np.packbits(values > 0, axis=-1)
        return packed if precision == "ubinary" else (packed.astype(np.int16) - 128).astype(np.int8)
    if not len(values):
        return values.astype(precision)
    low, high = _ranges(values, precision, ranges, calibration_embeddings)
    steps = (high - low) / 255
    steps = np.where(steps == 0, 1, steps)
    levels = np.clip(np.floor((values - low) / steps), 0, 255)
    return levels.astype(np.uint8) if precision == "uint8" else (levels - 128).astype(np.int8)  # type: ignore[no-any-return]


def _ranges(
    values: NDArray[Any], precision: str, ranges: NDArray[Any] | None, calibration_embeddings: Embeddings | None
) -> NDArray[Any]:
    """Smallest and largest value of each dimension: (2, d)."""
    dimension = values.shape[1]
    if ranges is not None:
        given: NDArray[Any] = embedding_matrix(ranges).detach().cpu().numpy()
        if given.shape != (2, dimension):
            raise InputError(f"got ranges of shape {given.shape}; expected (2, {dimension}): lowest and highest values")
        _refuse_not_finite(given, "ranges")
        if (given[0] > given[1]).any():
            place = int((given[0] > given[1]).argmax())
            raise InputError(
                f"got the range {given[0, place]:g} to {given[1, place]:g} for dimension {place}; expected the lowest "
                f"value before the highest"
            )
        return given
    calibration = values if calibration_embeddings is None else _floats(calibration_embeddings)
    if calibration.shape[1] != dimension:
        raise InputError(f"got calibration embeddings of {calibration.shape[1]} dimensions; expected {dimension}")
    _refuse_not_finite(calibration, "calibration embeddings")
    if len(calibration) < 2:
        raise InputError(
            f"got {len(calibration)} embedding(s) to take the ranges of {precision} from; expected many: pass ranges "
            f"or calibration_embeddings"
        )
    return np.stack([calibration.min(axis=0), calibration.max(axis=0)])


def _refuse_not_finite(values: NDArray[Any], what: str) -> None:
    rows = (~np.isfinite(values).all(axis=1)).nonzero()[0]
    if len(rows):
        raise InputError(f"row {rows[0]} of the {what} holds NaN or infinity; expected finite numbers: drop the row")


def is_real(value: Any) -> bool:
    """Whether a value is a number that a float can be, other than NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return False
    try:
        return not math.isnan(float(value))
    except OverflowError:
        return False


def _floats(embeddings: Embeddings) -> NDArray[Any]:
    """Embeddings as an array of floats: (n, d)."""
    kind = getattr(embeddings, "dtype", None)
    if kind is not None and not str(kind).removeprefix("torch.").startswith(("float", "bfloat")):
        raise InputError(f"got embeddings of type {kind}; expected floats: quantize only what has not been quantized")
    values: NDArray[Any] = embedding_matrix(embeddings).detach().cpu().numpy()
    return values


def embedding_matrix(embeddings: Embeddings) -> Tensor:
    """Embeddings as a matrix of float32 or float64: (n, d). Shares memory where it can.

    Raises:
        InputError: they are no rows of numbers.
    """
    try:
        if isinstance(embeddings, Tensor):
            tensor = embeddings
        elif isinstance(embeddings, np.ndarray):
            tensor = torch.from_numpy(np.require(embeddings, requirements=["C", "W"]))  # a read-only one is copied
        elif embeddings and isinstance(embeddings[0], Tensor):
            tensor = torch.stack(list(embeddings))
        elif embeddings and isinstance(embeddings[0], np.ndarray):
            tensor = torch.from_numpy(np.stack(embeddings))
        else:
            tensor = torch.tensor(embeddings)
    except (TypeError, ValueError, RuntimeError, LookupError, OverflowError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"got embeddings that are no matrix ({reason}); expected rows of numbers, all as long"
        ) from None
    if tensor.is_complex() or tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        raise InputError(f"got embeddings as {tensor.dtype} in {tensor.layout}; expected rows of real numbers")
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    if tensor.ndim not in (1, 2):
        raise InputError(f"got embeddings of shape {tuple(tensor.shape)}; expected (rows, dim) or (dim,)")
    if tensor.ndim == 1:
        return tensor.unsqueeze(0) if len(tensor) else tensor.reshape(0, 0)
    return tensor


def _matrices(a: Embeddings, b: Embeddings, *, same_rows: bool = False) -> tuple[Tensor, Tensor]:
    left, right = embedding_matrix(a), embedding_matrix(b)
    if same_rows and left.shape != right.shape:
        raise InputError(
            f"got {tuple(left.shape)} and {tuple(right.shape)}; expected two matrices of one shape, to compare by rows"
        )
    if left.shape[1] != right.shape[1]:
        raise InputError(f"got {left.shape[1]} and {right.shape[1]} dimensions; expected embeddings of one model")
    kind = torch.promote_types(left.dtype, right.dtype)
    return left.to(kind), right.to(kind)
