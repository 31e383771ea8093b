"""The mean of each text as a Triton kernel, against its definition in float64."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

import triton_common
from minisbert.kernels.triton_ops import pooling
from triton_common import BACKWARD, DEVICE, DTYPES, batch_of, close, drawn, gradients, poisoned  # noqa: F401

from minisbert.errors import ConfigError
from minisbert.kernels import plain
from minisbert.packing import PackedBatch

pytestmark = triton_common.pytestmark


def with_offsets(offsets: list[int]) -> PackedBatch:
    """A batch of which only the offsets count."""
    return replace(batch_of([1]), offsets=torch.tensor(offsets, dtype=torch.int32, device=DEVICE))


@pytest.mark.parametrize(("lengths", "dim"), [([1], 16), ([1, 2, 15, 16, 17, 33], 384), ([3, 200], 48)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_mean_pool(lengths: list[int], dim: int, dtype: torch.dtype) -> None:
    batch = batch_of(lengths)
    values = drawn(batch.tokens, dim, dtype=dtype)
    expected = gradients(lambda x: plain.mean_pool(x, batch), values.double())
    got = gradients(lambda x: pooling.mean_pool(x, batch), values)
    assert got[0].dtype == torch.float32
    assert got[1].dtype == dtype
    close(got[0], expected[0], 2e-6)
    close(got[1], expected[1], BACKWARD[dtype])


@pytest.mark.parametrize("offsets", [[0, 3, 3, 8, 8, 8], [0, 0, 5], [0, 0], [0, 2, 40]])
def test_texts_without_tokens_and_tokens_without_a_text(offsets: list[int]) -> None:
    values = drawn(75, 32)

    def exact(x: Tensor) -> Tensor:
        rows = [x[start:end].sum(0) / max(end - start, 1) for start, end in pairwise(offsets)]
        return torch.stack(rows)

    expected = gradients(exact, values.double())
    got = gradients(lambda x: pooling.mean_pool(x, with_offsets(offsets)), values)
    close(got[0], expected[0], 2e-6)
    close(got[1], expected[1], BACKWARD[torch.float32])
    assert not got[1][offsets[-1] :].any()


def test_no_texts() -> None:
    out, grad = gradients(lambda x: pooling.mean_pool(x, with_offsets([0])), drawn(3, 32))
    assert out.shape == (0, 32)
    assert not grad.any()


def test_refused() -> None:
    with pytest.raises(ConfigError, match="expected rows of a multiple of 16"):
        pooling.mean_pool(drawn(3, 33), batch_of([3]))
    batch = batch_of([3])
    with pytest.raises(ConfigError, match="got offsets"):
        pooling.mean_pool(drawn(3, 32), replace(batch, offsets=batch.offsets.long()))
