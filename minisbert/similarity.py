"""Similarity functions of embeddings, and quantization.

The functions take tensors, arrays or lists; one vector counts as a matrix of one row. Half-precision input is
converted to float32 first. Euclidean and manhattan similarities are negative distances, so that larger always means
more similar.
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

from .errors import ConfigError, InputError, InputTypeError, first_line

Embeddings: TypeAlias = Tensor | NDArray[Any] | Sequence[Any]
SimilarityMatrix: TypeAlias = Callable[[Embeddings, Embeddings], Tensor]
AnyMatrix = TypeVar("AnyMatrix", Tensor, NDArray[Any])
Precision: TypeAlias = Literal["float32", "int8", "uint8", "binary", "ubinary"]
_BYTES_AT_ONCE = 2**20  # that are unpacked: 64 times as much memory
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
        """Return the function called `name`.

        Raises:
            ConfigError: there is no function of that name.
        """
        try:
            return cls(name)
        except ValueError:
            expected = ", ".join(member.value for member in cls)
            raise ConfigError(f"got similarity function {name!r}; expected one of {expected}") from None

    @staticmethod
    def to_similarity_fn(similarity_function: str | SimilarityFunction) -> SimilarityMatrix:
        """Return `matrix` of the function of this name."""
        return SimilarityFunction.of(similarity_function).matrix

    @staticmethod
    def to_similarity_pairwise_fn(similarity_function: str | SimilarityFunction) -> SimilarityMatrix:
        """Return `pairwise` of the function of this name."""
        return SimilarityFunction.of(similarity_function).pairwise

    @staticmethod
    def possible_values() -> list[str]:
        """Return the names of all functions."""
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
    """Cosine similarities of all pairs: (n, d) and (m, d) to (n, m). A zero vector has similarity 0."""
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


def hamming_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative numbers of bits that differ, of all pairs: (n, bytes) and (m, bytes) to (n, m).

    Both are packed as `precision="ubinary"` packs them, or both as "binary" does.
    """
    left, right = _matrices(a, b)
    parts = torch.split(right, max(1, _BYTES_AT_ONCE // max(1, right.shape[1])))
    scores = torch.cat([_signs(left) @ _signs(part).T for part in parts], dim=1)  # equal bits less different ones
    return (scores - 8 * left.shape[1]) / 2


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
    return -F.pairwise_distance(*_matrices(a, b, same_rows=True), p=2.0, eps=0.0)


def pairwise_manhattan_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative manhattan distance of each row of `a` from the same row of `b`: (n,)."""
    left, right = _matrices(a, b, same_rows=True)
    return -(left - right).abs().sum(-1)


def pairwise_angle_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Absolute AnglE similarity of each row of `a` and the same row of `b`: (n,).

    The halves of a row are the real and imaginary parts of complex numbers (an odd dimension is padded with a zero).
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
    """Return the leading `truncate_dim` dimensions of an array or tensor, without a copy; all of them if it is None.

    Raises:
        ConfigError: `truncate_dim` is below 1.
        InputTypeError: the embeddings are neither an array nor a tensor.
        InputError: the embeddings are a single number.
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
    """Quantize embeddings.

    Args:
        embeddings: (n, d) floats.
        precision: "int8" and "uint8" divide each dimension into 256 equal steps between its smallest and largest
            value; "binary" and "ubinary" keep one bit per dimension (value > 0), eight to a byte, the last byte
            filled up with zeros; "float32" only converts to float32.
        ranges: (2, d): smallest and largest value of each dimension, for "int8" and "uint8".
        calibration_embeddings: take the ranges from these; by default, from `embeddings` themselves.

    Returns:
        (n, d) of the named type, or (n, ceil(d / 8)) for the binary ones ("binary" is int8, "ubinary" uint8).

    Raises:
        ConfigError: the precision is unknown.
        InputError: there are fewer than two embeddings to take the ranges from, a number is not finite, or a range has
            its lowest value above its highest.
    """
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ConfigError(f"got precision={precision!r}; expected float32, int8, uint8, binary or ubinary")
    values = _floats(embeddings)
    if precision == "float32":
        return values.astype(np.float32)
    check_finite(torch.from_numpy(values), what="embeddings")
    if precision in ("binary", "ubinary"):
        packed = np.packbits(values > 0, axis=-1)
        return packed if precision == "ubinary" else (packed.astype(np.int16) - 128).astype(np.int8)
    if not len(values):
        return values.astype(precision)
    low, high = _ranges(values, precision, ranges, calibration_embeddings).astype(np.float32)  # as in the reference
    steps = (high - low) / 255
    steps = np.where(steps == 0, 1, steps)
    levels = np.clip(np.floor((values - low) / steps), 0, 255)
    return levels.astype(np.uint8) if precision == "uint8" else (levels - 128).astype(np.int8)  # type: ignore[no-any-return]


def _ranges(
    values: NDArray[Any], precision: str, ranges: NDArray[Any] | None, calibration_embeddings: Embeddings | None
) -> NDArray[Any]:
    """Return the smallest and largest value of each dimension: (2, d)."""
    dimension = values.shape[1]
    if ranges is not None:
        limits = embedding_matrix(ranges).detach().cpu()
        if limits.shape != (2, dimension):
            raise InputError(
                f"got ranges of shape {tuple(limits.shape)}; expected (2, {dimension}): lowest and highest values"
            )
        check_finite(limits, what="ranges")
        wrong = (limits[0] > limits[1]).nonzero().flatten().tolist()
        if wrong:
            low, high = limits[:, wrong[0]].tolist()
            raise InputError(
                f"got the range {low:g} to {high:g} for dimension {wrong[0]}; expected the lowest first: swap them"
            )
        return np.asarray(limits)
    calibration = values if calibration_embeddings is None else _floats(calibration_embeddings)
    if calibration.shape[1] != dimension:
        raise InputError(f"got calibration embeddings of {calibration.shape[1]} dimensions; expected {dimension}")
    check_finite(torch.from_numpy(calibration), what="calibration embeddings")
    if len(calibration) < 2:
        raise InputError(
            f"got {len(calibration)} embedding(s) to take the ranges of {precision} from; expected at least 2: pass "
            f"ranges or calibration_embeddings"
        )
    return np.stack([calibration.min(axis=0), calibration.max(axis=0)])


def check_finite(rows: Tensor, *, what: str, first: int = 0) -> None:
    """Check that a matrix has no NaN or infinity; its first row has the number `first`.

    Raises:
        InputError: a row has.
    """
    suspects = (~rows.sum(dim=1).isfinite()).nonzero().flatten()  # the sum of large numbers can be infinite too
    for row in suspects.tolist():
        if not bool(rows[row].isfinite().all()):
            raise InputError(
                f"row {first + row} of the {what} holds NaN or infinity; expected finite numbers: drop the row, or "
                f"check the model that made it"
            )


def is_number(value: Any) -> bool:
    """Return True if a value is a number in the range of a float, and not NaN."""
    numeric = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    try:
        return numeric and not math.isnan(value)
    except OverflowError:
        return False


def check_embeddings(embedded: Any, texts: int) -> Any:
    """Return what a model or teacher gives for texts, an array or tensor (texts, dim).

    Raises:
        InputError: it is something else.
    """
    shape = getattr(embedded, "shape", None)
    other = isinstance(embedded, np.ndarray) and embedded.dtype.kind not in "fiu"
    if shape is None or other or len(shape) != 2 or shape[0] != texts:
        kind = f"an array of {embedded.dtype}" if other else f"a {type(embedded).__name__}"
        got = f"{kind} of shape {tuple(shape)}" if shape is not None else kind
        raise InputError(
            f"got {got} as embeddings of {texts} texts; expected numbers of shape ({texts}, dim): check what the "
            f"model's encode returns"
        )
    return embedded


def _floats(embeddings: Embeddings) -> NDArray[Any]:
    """Return embeddings as an array of floats: (n, d)."""
    dtype = getattr(embeddings, "dtype", None)
    if dtype is not None and not str(dtype).removeprefix("torch.").startswith(("float", "bfloat")):
        raise InputError(f"got embeddings of dtype {dtype}; expected floats: do not quantize twice")
    return embedding_matrix(embeddings).detach().cpu().numpy()


def embedding_matrix(embeddings: Embeddings) -> Tensor:
    """Return embeddings as a matrix of float32 or float64, without a copy where possible: (n, d).

    Raises:
        InputError: they are not rows of numbers.
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
        raise InputError(
            f"got embeddings that are not a matrix ({first_line(error)}); expected rows of numbers, all of one length: "
            f"pass what encode returns"
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


def _signs(packed: Tensor) -> Tensor:
    """Unpack bits into 1 and -1, as float32: (n, bytes) to (n, 8 * bytes)."""
    places = 2 ** torch.arange(8, dtype=torch.uint8, device=packed.device)
    bits = packed.to(torch.int16).to(torch.uint8).unsqueeze(-1) & places
    return (bits != 0).flatten(1).float() * 2 - 1


def _matrices(a: Embeddings, b: Embeddings, *, same_rows: bool = False) -> tuple[Tensor, Tensor]:
    left, right = embedding_matrix(a), embedding_matrix(b)
    if same_rows and left.shape != right.shape:
        raise InputError(
            f"got shapes {tuple(left.shape)} and {tuple(right.shape)}; expected one shape, to compare row by row"
        )
    if left.shape[1] != right.shape[1]:
        raise InputError(f"got {left.shape[1]} and {right.shape[1]} dimensions; expected embeddings of one model")
    dtype = torch.promote_types(left.dtype, right.dtype)
    return left.to(dtype), right.to(dtype)
