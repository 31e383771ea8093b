"""Search in an index of FAISS or USearch, where these packages are installed, among quantized embeddings too."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError
from .similarities import quantize_embeddings

logger = logging.getLogger(__name__)
_INTEGERS = (np.uint8, np.int8)
_NEIGHBOURS = 16  # of each row in an index that is searched approximately
_Array = NDArray[Any]


def semantic_search_faiss(
    query_embeddings: _Array,
    corpus_embeddings: _Array | None = None,
    corpus_index: Any = None,
    corpus_precision: Literal["float32", "uint8", "ubinary"] = "float32",
    top_k: int = 10,
    ranges: _Array | None = None,
    calibration_embeddings: _Array | None = None,
    rescore: bool = True,
    rescore_multiplier: int = 2,
    exact: bool = True,
    output_index: bool = False,
) -> tuple[Any, ...]:
    """Find the rows most similar to each query, by dot product or Hamming distance, with FAISS.

    Args:
        query_embeddings: (n, d): floats, or quantized like the corpus.
        corpus_embeddings: (m, d), of `corpus_precision`; or else `corpus_index`.
        corpus_index: an index of an earlier call.
        corpus_precision: "float32", "uint8" or "ubinary".
        top_k: most hits for each query.
        ranges: (2, d): ranges by which the corpus is quantized.
        calibration_embeddings: take the ranges from these; by default from the queries.
        rescore: find `rescore_multiplier` times as many hits in a quantized corpus, and choose the best by the dot
            product with the queries as floats.
        rescore_multiplier: see `rescore`.
        exact: compare with all rows; if False, make an index that is searched approximately.
        output_index: return the index too.

    Returns:
        For each query {"corpus_id": row, "score": score} of its hits, the seconds that it took, and the index if asked
        for.

    Raises:
        ConfigError: FAISS is not installed, the precision is another one, or there is not one corpus.
    """
    try:
        import faiss  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise ConfigError("semantic_search_faiss needs FAISS; expected it installed: pip install faiss-cpu") from None
    _check(corpus_embeddings, corpus_index, corpus_precision, ("float32", "uint8", "ubinary"))
    bits = corpus_precision == "ubinary"
    if corpus_embeddings is not None:
        dim = corpus_embeddings.shape[1]
        if bits:
            corpus_index = faiss.IndexBinaryFlat(dim * 8) if exact else faiss.IndexBinaryHNSW(dim * 8, _NEIGHBOURS)
        else:
            product = faiss.METRIC_INNER_PRODUCT
            corpus_index = faiss.IndexFlatIP(dim) if exact else faiss.IndexHNSWFlat(dim, _NEIGHBOURS, product)
        corpus_index.add(corpus_embeddings)
    again = _rescores(query_embeddings, rescore, quantized=corpus_precision != "float32")
    shared = _ranges(query_embeddings, ranges, calibration_embeddings) if again and not bits else ranges
    queries = _quantized(query_embeddings, corpus_precision, shared, calibration_embeddings)
    start = time.time()
    scores, rows = corpus_index.search(queries, top_k * (rescore_multiplier if again else 1))
    valid = rows != -1

    def candidates() -> _Array:
        nothing = np.zeros(corpus_index.d // 8 if bits else corpus_index.d, np.uint8 if bits else np.float32)
        return np.array(
            [[corpus_index.reconstruct(int(row)) if row != -1 else nothing for row in some] for some in rows]
        )

    if again:
        scores, rows, valid = _rescored(query_embeddings, candidates, rows, valid, top_k, corpus_precision, shared)
    return _hits(scores, rows, valid, start, corpus_index if output_index else None)


def semantic_search_usearch(
    query_embeddings: _Array,
    corpus_embeddings: _Array | None = None,
    corpus_index: Any = None,
    corpus_precision: Literal["float32", "int8", "ubinary", "binary"] = "float32",
    top_k: int = 10,
    ranges: _Array | None = None,
    calibration_embeddings: _Array | None = None,
    rescore: bool = True,
    rescore_multiplier: int = 2,
    exact: bool = True,
    output_index: bool = False,
) -> tuple[Any, ...]:
    """Find the rows most similar to each query, by cosine, dot product or Hamming distance, with USearch.

    Scores are distances unless `rescore` replaces them. The arguments are those of `semantic_search_faiss`, but a
    corpus is of "float32", "int8", "ubinary" or "binary", and `exact` says how an index is searched, not made.

    Raises:
        ConfigError: USearch is not installed, the precision is another one, or there is not one corpus.
    """
    try:
        from usearch.index import Index  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise ConfigError("semantic_search_usearch needs USearch; expected it installed: pip install usearch") from None
    _check(corpus_embeddings, corpus_index, corpus_precision, ("float32", "int8", "ubinary", "binary"))
    bits = corpus_precision in ("ubinary", "binary")
    if corpus_embeddings is not None:
        kind = ("hamming", "b1") if bits else {"float32": ("cos", "f32"), "int8": ("ip", "i8")}[corpus_precision]
        corpus_index = Index(ndim=corpus_embeddings.shape[1] * (8 if bits else 1), metric=kind[0], dtype=kind[1])
        corpus_index.add(np.arange(len(corpus_embeddings)), _unsigned(corpus_embeddings, corpus_precision))
    again = _rescores(query_embeddings, rescore, quantized="f32" not in str(corpus_index.dtype).lower())
    shared = _ranges(query_embeddings, ranges, calibration_embeddings) if again and not bits else ranges
    queries = _unsigned(
        _quantized(query_embeddings, corpus_precision, shared, calibration_embeddings), corpus_precision
    )
    start = time.time()
    matches = corpus_index.search(queries, count=top_k * (rescore_multiplier if again else 1), exact=exact)
    scores, rows = np.atleast_2d(matches.distances), np.atleast_2d(matches.keys)
    counts: Any = getattr(matches, "counts", rows.shape[1])  # one query alone has none
    valid = np.arange(rows.shape[1]) < np.reshape(counts, (-1, 1))

    def candidates() -> _Array:
        known = np.where(valid, rows, rows[valid][0])
        return np.array([corpus_index.get(some) for some in known])

    if again and valid.any():
        scores, rows, valid = _rescored(query_embeddings, candidates, rows, valid, top_k, corpus_precision, shared)
    return _hits(scores, rows, valid, start, corpus_index if output_index else None)


def _check(embeddings: _Array | None, index: Any, precision: str, known: tuple[str, ...]) -> None:
    if (embeddings is None) == (index is None):
        got = "both" if embeddings is not None else "neither"
        raise ConfigError(f"got {got} of corpus_embeddings and corpus_index; expected one of them: pass only one")
    if precision not in known:
        raise ConfigError(f"got corpus_precision={precision!r}; expected one of {', '.join(known)}: pass one of them")


def _rescores(queries: _Array, rescore: bool, *, quantized: bool) -> bool:
    """Return True if hits are to be chosen by the queries as floats; log a warning if that cannot be."""
    possible = quantized and queries.dtype not in _INTEGERS
    if rescore and not possible:
        what = "the corpus is not" if queries.dtype not in _INTEGERS else "the queries are"
        logger.warning("rescore needs a quantized corpus and queries as floats, and %s quantized", what)
    return rescore and possible


def _ranges(queries: _Array, ranges: _Array | None, calibration: _Array | None) -> _Array:
    """Return the ranges of the corpus, or of those embeddings that stand for it: (2, d)."""
    if ranges is not None:
        return ranges
    rows = queries if calibration is None else calibration
    return np.stack([rows.min(axis=0), rows.max(axis=0)])


def _quantized(queries: _Array, precision: Any, ranges: _Array | None, calibration: _Array | None) -> _Array:
    return (
        queries
        if queries.dtype in _INTEGERS
        else np.asarray(quantize_embeddings(queries, precision, ranges, calibration))
    )


def _unsigned(embeddings: _Array, precision: str) -> _Array:
    """Return the bits of "binary" as those of "ubinary"."""
    return embeddings.view(np.uint8) ^ 0x80 if precision == "binary" else embeddings


def _rescored(
    queries: _Array,
    candidates: Callable[[], _Array],
    rows: _Array,
    valid: _Array,
    top_k: int,
    precision: str,
    ranges: _Array | None,
) -> tuple[_Array, _Array, _Array]:
    """Return scores, rows and validity of the best hits by the dot product of float queries with dequantized hits."""
    found = candidates()
    if "binary" in precision:
        found = np.unpackbits(found.astype(np.uint8), axis=-1)[..., : queries.shape[-1]].astype(np.float64)
    else:
        low, high = np.asarray(ranges, np.float32)
        steps = (high - low) / 255
        levels = found.astype(np.float64) + (128 if precision == "int8" else 0)
        found = levels * np.where(steps == 0, 1, steps) + low
    scores = np.einsum("ij,ikj->ik", queries, found).astype(np.float64)
    scores[~valid] = -np.inf
    best = np.argsort(-scores, axis=1)[:, :top_k]
    scores, rows, valid = (np.take_along_axis(values, best, axis=1) for values in (scores, rows, valid))
    return scores, rows, valid


def _hits(scores: _Array, rows: _Array, valid: _Array, start: float, index: Any) -> tuple[Any, ...]:
    seconds = time.time() - start
    hits = [
        [{"corpus_id": int(row), "score": float(score)} for score, row, real in zip(*query, strict=True) if real]
        for query in zip(scores, rows, valid, strict=True)
    ]
    return (hits, seconds) if index is None else (hits, seconds, index)
