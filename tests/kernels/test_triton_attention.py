"""Packed attention in Triton against its plain definition in float64."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

import triton_common
from minisbert.kernels.triton_ops import attention
from triton_common import (  # noqa: F401
    BACKWARD,
    DEVICE,
    DTYPES,
    FORWARD,
    batch_of,
    close,
    drawn,
    dropout_mask,
    gradients,
    poisoned,
    seed_of,
)

from minisbert.errors import ConfigError
from minisbert.kernels import plain
from minisbert.packing import PackedBatch, Run

pytestmark = triton_common.pytestmark
SHORT, MIDDLE, LONG = [1, 2, 15, 16], [3, 17, 33, 64], [1, 65, 200]


def exact(qkv: Tensor, batch: PackedBatch, heads: int, dropout: float, seed: Tensor) -> Tensor:
    """Attention text by text in the dtype given, under the mask of `seed`."""
    dim = qkv.shape[1] // 3
    offsets = batch.offsets.tolist()
    mask = dropout_mask(seed, batch.tokens * heads, batch.max_length, dropout)
    mask = mask.view(batch.tokens, heads, -1)
    outputs = []
    for start, end in itertools.pairwise(offsets):
        q, k, v = (part.view(end - start, heads, -1).transpose(0, 1) for part in qkv[start:end].split(dim, 1))
        weights = (q @ k.transpose(1, 2) / math.sqrt(q.shape[2])).softmax(2)
        kept = mask[start:end, :, : end - start].transpose(0, 1)
        outputs.append((weights * kept / (1 - dropout) @ v).transpose(0, 1).reshape(end - start, dim))
    return torch.cat(outputs)


@pytest.mark.parametrize(
    ("lengths", "heads", "head", "dtype"),
    [
        ([1], 12, 32, torch.float32),
        (SHORT, 12, 32, torch.float32),
        ([32, 15, 17], 2, 64, torch.float32),
        (MIDDLE, 2, 32, torch.float32),
        (LONG, 1, 32, torch.float32),
        ([1, 65], 2, 64, torch.float32),
        ([2, 40], 2, 16, torch.float32),
        ([17, 70], 2, 48, torch.float32),
        ([33, 70], 1, 128, torch.float32),
        *(
            (lengths, 1, head, dtype)
            for dtype in DTYPES[1:]
            for lengths, head in ((SHORT, 32), ([1, 31], 64), (MIDDLE, 32), (LONG, 32), ([1, 65], 128))
        ),
    ],
)
def test_attention(lengths: list[int], heads: int, head: int, dtype: torch.dtype) -> None:
    batch = batch_of(lengths)
    qkv = drawn(batch.tokens, 3 * heads * head, dtype=dtype)
    got = gradients(lambda x: attention.attention_qkv(x, batch, heads=heads), qkv)
    expected = gradients(lambda x: plain.attention_qkv(x, batch, heads=heads), qkv.double())
    assert got[0].dtype == got[1].dtype == dtype
    close(got[0], expected[0], FORWARD[dtype])
    close(got[1], expected[1], BACKWARD[dtype])


@pytest.mark.parametrize(("lengths", "heads", "head"), [(SHORT, 3, 32), (MIDDLE, 2, 32), ([5, 100], 1, 64)])
def test_dropout(lengths: list[int], heads: int, head: int) -> None:
    batch, seed = batch_of(lengths), seed_of(2**40 + 7)
    qkv = drawn(batch.tokens, 3 * heads * head)
    got = gradients(lambda x: attention.attention_qkv(x, batch, heads=heads, dropout=0.3, seed=seed), qkv)
    expected = gradients(lambda x: exact(x, batch, heads, 0.3, seed), qkv.double())
    close(got[0], expected[0], FORWARD[torch.float32])
    close(got[1], expected[1], BACKWARD[torch.float32])


def test_dropout_mask() -> None:
    seed = seed_of(5)
    mask = dropout_mask(seed, 300, 200, 0.25)
    assert abs(float(mask.float().mean()) - 0.75) < 5 * math.sqrt(0.25 * 0.75 / mask.numel())
    assert mask[7:20, :9].equal(dropout_mask(seed, 13, 9, 0.25, first_row=7))
    assert not mask.equal(dropout_mask(seed_of(6), 300, 200, 0.25))
    assert not mask.equal(dropout_mask(seed_of(5 + 2**32), 300, 200, 0.25))
    for one, other in ((mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1]), (mask[:, 4:], mask[:, :-4])):
        share = float((one & other).float().mean())  # of neighbours both kept, as if drawn apart
        assert abs(share - 0.75**2) < 0.02


def test_dropout_draws_its_own_seed() -> None:
    batch = batch_of([20, 20])
    qkv = drawn(40, 96)
    torch.manual_seed(1)
    first, second = (attention.attention_qkv(qkv, batch, heads=1, dropout=0.5) for _ in range(2))
    torch.manual_seed(1)
    assert first.equal(attention.attention_qkv(qkv, batch, heads=1, dropout=0.5))
    assert not first.equal(second)


@pytest.mark.parametrize("longest", [16, 64, 100])
def test_a_padded_bucket(longest: int) -> None:
    """Empty texts at the end and tokens of no text, as a captured graph has them."""
    batch = batch_of([3, 9, 14])
    offsets = torch.tensor([*batch.offsets.tolist(), 26, 26, 26], dtype=torch.int32, device=DEVICE)
    bucket = replace(batch, offsets=offsets, runs=(Run(0, 6, longest),))
    qkv = drawn(26 + 7, 3 * 64)
    qkv[26:] = float("nan")  # must reach nothing
    got = gradients(lambda x: attention.attention_qkv(x, bucket, heads=2), qkv)
    expected = gradients(lambda x: plain.attention_qkv(x, batch, heads=2), qkv[:26].double())
    close(got[0][:26], expected[0], FORWARD[torch.float32])
    close(got[1][:26], expected[1], BACKWARD[torch.float32])
    assert not got[0][26:].any()
    assert not got[1][26:].any()


def test_the_sums_of_rows() -> None:
    batch = batch_of([1, 30])
    qkv = drawn(31, 96)
    _, lse = attention.attend(qkv, batch.offsets, None, 30, 1, 0.0)
    q, k, _ = qkv[1:].double().split(32, 1)
    close(lse[1:, 0], (q @ k.T / math.sqrt(32)).logsumexp(1), FORWARD[torch.float32])


def test_large_scores() -> None:
    batch = batch_of([2, 20])
    qkv = drawn(22, 96) * 10
    got = gradients(lambda x: attention.attention_qkv(x, batch, heads=1), qkv)
    expected = gradients(lambda x: plain.attention_qkv(x, batch, heads=1), qkv.double())
    close(got[0], expected[0], 1e-4)
    close(got[1], expected[1], 1e-3)


@pytest.mark.parametrize(
    ("columns", "heads", "settings", "message"),
    [
        (96, 4, {}, "got 96 columns for 4 heads"),
        (95, 1, {}, "got 95 columns for 1 heads"),
        (96, 1, {"dropout": 1.0}, "got dropout 1.0"),
        (96, 1, {"dropout": 0.1, "seed": torch.zeros(2)}, "got a seed of shape"),
    ],
)
def test_bad_input(columns: int, heads: int, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        attention.attention_qkv(drawn(3, columns), batch_of([3]), heads=heads, **settings)


def test_not_contiguous() -> None:
    with pytest.raises(ConfigError, match="not contiguous"):
        attention.attention_qkv(drawn(96, 3).T, batch_of([3]), heads=1)
