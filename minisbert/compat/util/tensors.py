"""Tensors of embeddings and features: conversion, devices, padding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...errors import ConfigError, InputError, InputTypeError
from ...similarity import AnyMatrix, Embeddings
from ...similarity import normalize_embeddings as normalize_embeddings

_FLATTENED = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx", "position_ids")


def _convert_to_tensor(a: Embeddings) -> Tensor:
    """Return embeddings in any form as a tensor, in their own dtype; an array that can be written to is not copied."""
    if isinstance(a, Tensor):
        return a
    if isinstance(a, np.ndarray):
        return torch.from_numpy(a) if a.flags.writeable else torch.tensor(a)
    if isinstance(a, Sequence) and a and all(isinstance(row, (Tensor, np.ndarray)) for row in a):
        return torch.stack([_convert_to_tensor(row) for row in a])
    return torch.tensor(a)


def float_tensor(a: Embeddings) -> Tensor:
    """Return embeddings as a tensor, floats of fewer than 32 bits as float32.

    Raises:
        InputTypeError: the tensor is sparse.
    """
    tensor = _convert_to_tensor(a)
    if tensor.layout != torch.strided:
        raise InputTypeError(f"got a {tensor.layout} tensor; expected a dense one: call to_dense() on it")
    return tensor.float() if tensor.is_floating_point() and torch.finfo(tensor.dtype).bits < 32 else tensor


def _convert_to_batch(a: Tensor) -> Tensor:
    """Return one vector as a matrix of one row, and anything else as it is."""
    return a.unsqueeze(0) if a.dim() == 1 else a


def _convert_to_batch_tensor(a: Embeddings) -> Tensor:
    """Return embeddings as a tensor of rows, floats of fewer than 32 bits as float32."""
    return _convert_to_batch(float_tensor(a))


def truncate_embeddings(embeddings: AnyMatrix, truncate_dim: int | None) -> AnyMatrix:
    """Return the leading dimensions as a view; a negative number counts from the end, None keeps all."""
    return embeddings[..., :truncate_dim]


def select_max_active_dims(embeddings: Tensor | NDArray[Any], max_active_dims: int | None) -> Tensor | NDArray[Any]:
    """Keep the numbers of each row that are largest without their sign, and set the others to 0, in a new tensor.

    Args:
        embeddings: (..., d).
        max_active_dims: how many to keep; None returns the embeddings themselves.

    Raises:
        ConfigError: the number is below 1.
    """
    if max_active_dims is None:
        return embeddings
    if max_active_dims < 1:
        raise ConfigError(f"got max_active_dims={max_active_dims}; expected at least 1, or None for all: pass one")
    rows = _convert_to_tensor(embeddings)
    kept = rows.abs().topk(min(max_active_dims, rows.shape[-1]), dim=-1).indices
    return torch.zeros_like(rows).scatter(-1, kept, rows.gather(-1, kept))


def batch_to_device(batch: dict[str, Any], target_device: torch.device | str) -> dict[str, Any]:
    """Move the tensors of a batch to a device, in place; return the batch."""
    for name, value in batch.items():
        if isinstance(value, Tensor):
            batch[name] = value.to(target_device)
    return batch


def _move_tensors_to_cpu(value: Any) -> Any:
    """Return a value with every tensor in its dicts, lists and tuples on the CPU."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _move_tensors_to_cpu(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_move_tensors_to_cpu(item) for item in value)
    return value


def compute_count_vector(embeddings: Tensor) -> Tensor:
    """Count the rows that are not 0 in each dimension: (n, d) or (d,) to int32 (d,). Sparse tensors too.

    Raises:
        InputError: the tensor has another number of dimensions.
    """
    if embeddings.dim() not in (1, 2):
        raise InputError(f"got a tensor of {embeddings.dim()} dimensions; expected (n, d) or (d,): reshape it")
    indices = (embeddings if embeddings.is_sparse else embeddings.to_sparse()).coalesce().indices()
    return torch.bincount(indices[-1], minlength=embeddings.shape[-1]).int()


def to_scipy_coo(x: Tensor) -> Any:
    """Return a sparse COO tensor of two dimensions as a scipy.sparse.coo_matrix."""
    from scipy.sparse import coo_matrix

    x = x.coalesce()
    values = x.values().float() if x.dtype == torch.bfloat16 else x.values()
    rows, columns = x.indices().cpu().numpy()
    return coo_matrix((values.cpu().numpy(), (rows, columns)), shape=tuple(x.shape))


def _padded(embeddings: Sequence[Tensor], masks: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Pad token embeddings (n, tokens, d) and masks (n, tokens) of several batches to the most tokens of any."""
    most = max(part.shape[1] for part in embeddings)
    missing = [most - part.shape[1] for part in embeddings]
    longer = [F.pad(part, (0, 0, 0, count)) for part, count in zip(embeddings, missing, strict=True)]
    return longer, [F.pad(mask, (0, count)) for mask, count in zip(masks, missing, strict=True)]


def stack_padded_token_embeddings(embeddings: list[Tensor], masks: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack the columns of a batch, padded: (n, tokens, d) and (n, tokens) each to (n, columns, tokens, d) and mask."""
    embeddings, masks = _padded(embeddings, masks)
    return torch.stack(embeddings, dim=1), torch.stack(masks, dim=1)


def cat_padded_token_embeddings(embeddings: list[Tensor], masks: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Join parts of a batch, padded: (n, tokens, d) and (n, tokens) each to (sum of n, tokens, d) and mask."""
    embeddings, masks = _padded(embeddings, masks)
    return torch.cat(embeddings), torch.cat(masks)


def repad_flattened_features(features: dict[str, Any]) -> dict[str, Any]:
    """Turn features of texts that follow each other in one row into padded ones, in place; return them.

    Args:
        features: token_embeddings (1, tokens, d) and input_ids (1, tokens), with the bounds of the texts in
            cu_seq_lens_q. They become (n, longest, d) and (n, longest), with an attention_mask, and the keys of the
            flat form go.
    """
    bounds = features["cu_seq_lens_q"].tolist()
    lengths = [end - start for start, end in pairwise(bounds)]
    for name in ("token_embeddings", "input_ids"):
        parts = features[name][0, bounds[0] : bounds[-1]].split(lengths)
        features[name] = torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
    device = features["token_embeddings"].device
    positions = torch.arange(max(lengths), device=device)
    features["attention_mask"] = positions < torch.tensor(lengths, device=device)[:, None]
    for name in _FLATTENED:
        features.pop(name, None)
    return features
