"""A whole encoder on a GPU: products through cuBLAS, everything between them in one Triton kernel each.

Query, key and value are one product, and what a linear layer adds goes into the kernel that follows it. In training
under autocast products work in half precision while the residual stream stays in float32. Derivatives are those of the
operations; nothing is copied beforehand, so that a changed weight cannot be missed.
"""

from __future__ import annotations

from dataclasses import replace
from threading import Lock

import torch
import torch.nn.functional as F
from torch import Tensor

from minisbert.kernels.graphs import CudaGraphs, Graphs, Recorder
from minisbert.kernels.weights import NO_DROPOUT, Dropouts, EncoderWeights, Norm
from minisbert.packing import PackedBatch

from . import attention
from .embedding import embed_norm
from .gelu import bias_gelu
from .launch import DTYPES, supports_rows
from .norm import add_norm


def supports(weights: EncoderWeights) -> bool:
    """Whether the kernels take such weights."""
    sizes = weights.dim, weights.inner
    return (
        weights.word.dtype in DTYPES
        and all(map(supports_rows, sizes if weights.layers else sizes[:1]))
        and attention.supports(weights.dim, weights.heads)
    )


def encode(
    weights: EncoderWeights, batch: PackedBatch, *, dtype: torch.dtype | None = None, dropouts: Dropouts = NO_DROPOUT
) -> Tensor:
    """Embed the tokens of a batch, whose positions are rows of the position table: (tokens, dim).

    Args:
        weights: on the device of the batch.
        batch: only ids, positions, types and offsets are read, and a bound of the lengths.
        dtype: of the products; that of the weights by default.
        dropouts: probabilities.

    Returns:
        The stream after the last layer, in the type of the weights.
    """
    half = dtype or weights.word.dtype

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(x, weight.to(half), None if bias is None else bias.to(half))

    def joined(x: Tensor, x_bias: Tensor, residual: Tensor, norm: Norm, dropout: float) -> tuple[Tensor, Tensor]:
        """The residual stream, and the same rounded for the next product."""
        return add_norm(x, residual, norm.weight, norm.bias, eps=norm.eps, dropout=dropout, x_bias=x_bias)

    with torch.autocast("cuda", enabled=False):
        stream = embed_norm(
            batch.input_ids,
            batch.positions,
            batch.token_types,
            weights.word,
            weights.position,
            weights.token_type,
            weights.norm.weight,
            weights.norm.bias,
            eps=weights.norm.eps,
            dropout=dropouts.embeddings,
        )
        rounded = stream.to(half)
        for layer in weights.layers:
            qkv = linear(rounded, *layer.qkv())
            attended = attention.attention_qkv(qkv, batch, heads=weights.heads, dropout=dropouts.attention_weights)
            output, norm = layer.output, layer.attention_norm
            stream, rounded = joined(
                linear(attended, output.weight), output.bias, stream, norm, dropouts.attention_output
            )
            raised = bias_gelu(linear(rounded, layer.up.weight), layer.up.bias)
            lowered = linear(raised, layer.down.weight)
            stream, rounded = joined(lowered, layer.down.bias, stream, layer.output_norm, dropouts.output)
        return stream


class GpuEncoder:
    """An encoder for inference: `encode` as CUDA graphs.

    Args:
        weights: read where they stand at each call.
        record: turns work into its recording; by default a CUDA graph.
    """

    def __init__(self, weights: EncoderWeights, *, record: Recorder[Tensor] | None = None) -> None:
        device = weights.word.device
        self._graphs = Graphs[Tensor](
            lambda batch, _: encode(weights, batch), device, fill_texts=True, record=record or CudaGraphs(device)
        )
        self._lock = Lock()

    def __call__(self, ids: Tensor, positions: Tensor, types: Tensor | None, batch: PackedBatch) -> Tensor:
        """Embed tokens: (tokens,) numbers, positions and types to (tokens, dim), in the type of the weights."""
        given = replace(batch, input_ids=ids, positions=positions, token_types=types)
        with self._lock:
            return self._graphs(given)[: batch.tokens].clone()
