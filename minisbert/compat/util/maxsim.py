"""Late interaction: each token of a query counts with its best match among the tokens of a document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ...errors import InputError
from ...similarity import Embeddings
from .tensors import _convert_to_tensor

_AT_ONCE = 100_000_000  # numbers of padded documents and token similarities
_NOTHING = -1e9  # score of a document without tokens: below every other, and still finite when it is squared


def maxsim(
    a: Embeddings,
    b: Embeddings,
    a_mask: Tensor | None = None,
    b_mask: Tensor | None = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
    device: str | torch.device | None = None,
) -> Tensor:
    """Sum over the tokens of a query of the largest dot product with a token of a document, for all pairs.

    Args:
        a: queries: (n, tokens, d) padded with zeros, a list of (tokens, d), or one (tokens, d).
        b: documents, in the same forms.
        a_mask: (n, tokens): the weight of each token, 0 for none; a list of (tokens,) too.
        b_mask: the same of the documents, where only 0 matters.
        chunk_elements: numbers that are in memory at the same time, except of a single document.
        length_normalize: divide by the number of tokens of the query.
        device: compute there; the scores are on the device of the documents all the same.

    Returns:
        float32, (n, m); a document without tokens scores -1e9.

    Raises:
        InputError: a mask has another number of tokens than the embeddings.
    """
    queries, query_mask, counts = _side(a, a_mask, "a_mask")
    documents, document_mask, _ = _side(b, b_mask, "b_mask")
    home = documents.device
    if not len(queries) or not len(documents):
        return torch.zeros(len(queries), len(documents), device=home)
    place = torch.device(device) if device is not None else home
    queries, query_mask = queries.to(place), query_mask.to(place)
    width, dim = documents.shape[1:]
    step = _step(chunk_elements, (queries.shape[0] * queries.shape[1] + dim) * width)
    scores = [
        _best(
            torch.einsum("qsd,ctd->qcst", queries, documents[start : start + step].to(place)),
            query_mask[:, None],
            document_mask[start : start + step].to(place),
        ).to(home)
        for start in range(0, len(documents), step)
    ]
    result = torch.cat(scores, dim=1)
    return result / counts.to(home)[:, None] if length_normalize else result


def maxsim_pairwise(
    a: Embeddings,
    b: Embeddings,
    a_mask: Tensor | None = None,
    b_mask: Tensor | None = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
    device: str | torch.device | None = None,
) -> Tensor:
    """Compute `maxsim` of each query with the document of the same row: float32, (n,).

    Raises:
        InputError: as for `maxsim`, or there are more of one than of the other.
    """
    queries, query_mask, counts = _side(a, a_mask, "a_mask")
    documents, document_mask, _ = _side(b, b_mask, "b_mask")
    if len(queries) != len(documents):
        raise InputError(f"got {len(queries)} queries and {len(documents)} documents; expected as many of each")
    home = documents.device
    place = torch.device(device) if device is not None else home
    step = _step(chunk_elements, queries[:1].numel() + (queries.shape[1] + documents.shape[2]) * documents.shape[1])
    scores = [torch.zeros(0, device=home)]
    for start in range(0, len(documents), step):
        rows = slice(start, start + step)
        tokens = torch.einsum("psd,ptd->pst", queries[rows].to(place), documents[rows].to(place))
        scores.append(_best(tokens, query_mask[rows].to(place), document_mask[rows].to(place)).to(home))
    result = torch.cat(scores)
    return result / counts.to(home) if length_normalize else result


def mean_maxsim(
    a: Embeddings,
    b: Embeddings,
    a_mask: Tensor | None = None,
    b_mask: Tensor | None = None,
    chunk_elements: int | None = None,
    length_normalize: bool = True,
    device: str | torch.device | None = None,
) -> Tensor:
    """Compute `maxsim`, by default divided by the number of tokens of the query: float32, (n, m)."""
    return maxsim(a, b, a_mask, b_mask, chunk_elements, length_normalize, device)


def mean_maxsim_pairwise(
    a: Embeddings,
    b: Embeddings,
    a_mask: Tensor | None = None,
    b_mask: Tensor | None = None,
    chunk_elements: int | None = None,
    length_normalize: bool = True,
    device: str | torch.device | None = None,
) -> Tensor:
    """Compute `maxsim_pairwise`, by default divided by the number of tokens of the query: float32, (n,)."""
    return maxsim_pairwise(a, b, a_mask, b_mask, chunk_elements, length_normalize, device)


def _step(chunk_elements: int | None, each: int) -> int:
    return max(1, (_AT_ONCE if chunk_elements is None else chunk_elements) // max(1, each))


def _best(tokens: Tensor, query_mask: Tensor, document_mask: Tensor) -> Tensor:
    """Scores of token similarities (..., pairs, query tokens, document tokens): float32, (..., pairs)."""
    if not tokens.shape[-1]:
        return torch.full(tokens.shape[:-2], _NOTHING, device=tokens.device)
    real = document_mask.bool()
    tokens = tokens.masked_fill(~real.unsqueeze(-2), torch.finfo(tokens.dtype).min)
    scores = (tokens.max(dim=-1).values.float() * query_mask).sum(dim=-1)
    return scores.masked_fill(~real.any(dim=-1), _NOTHING)


def _side(embeddings: Embeddings, mask: Any, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return floats (n, tokens, d), padded, their mask (n, tokens), and the tokens of each, at least 1: (n,)."""
    if isinstance(mask, (list, tuple)):
        mask = pad_sequence([_convert_to_tensor(one) for one in mask], batch_first=True)
    elif isinstance(mask, np.ndarray):
        mask = _convert_to_tensor(mask)
    if isinstance(embeddings, Sequence):
        rows = [_convert_to_tensor(one) for one in embeddings]
        lengths = torch.tensor([len(one) for one in rows])
        padded = pad_sequence(rows, batch_first=True) if rows else torch.zeros(0, 0, 0)
        own = torch.arange(padded.shape[1], device=padded.device) < lengths.to(padded.device)[:, None]
    else:
        padded = _convert_to_tensor(embeddings)
        if padded.dim() == 2:
            padded = padded[None]
            mask = mask[None] if mask is not None and mask.dim() == 1 else mask
        own = padded.any(dim=-1)
    if mask is not None and mask.shape[-1] != padded.shape[1]:
        raise InputError(
            f"got {name} over {mask.shape[-1]} tokens for embeddings of {padded.shape[1]}; expected one for each"
        )
    chosen = own if mask is None else mask.to(padded.device).expand(len(padded), -1)
    return padded if padded.is_floating_point() else padded.float(), chosen, chosen.bool().sum(dim=-1).clamp(min=1)
