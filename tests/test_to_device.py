"""Tensors in one buffer and back, and batches on their way to a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from minisbert.packing import PackedBatch, pack, pack_padded
from minisbert.prefetch import join_buffer, split_buffer, to_device
from minisbert.text import TokenizedTexts

DTYPES = (torch.int64, torch.int32, torch.bool, torch.float32, torch.float16, torch.bfloat16, torch.uint8)
shapes = st.lists(st.integers(0, 5), max_size=3)


def bits(tensor: Tensor) -> bytes:
    return tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def same(got: list[Tensor], expected: list[Tensor]) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert bits(one) == bits(other)


def batches() -> list[PackedBatch]:
    """Of every kind: with types, with a mask, and with a prompt."""
    texts = TokenizedTexts(
        np.array([7, 8, 9, 5, 6, 4], np.int32), np.array([3, 2, 1]), 0, np.array([0, 1, 1, 0, 0, 0], np.int32)
    )
    ids = [np.array([5, 6, 7], np.int32), np.array([8], np.int32)]
    return [pack(texts), pack(texts, np.array([1, 2]), prompt_length=2), pack_padded(ids, padding=1)]


def tensors_of(batch: PackedBatch) -> list[Tensor]:
    return [value for value in vars(batch).values() if isinstance(value, Tensor)]


def others_of(batch: PackedBatch) -> dict[str, Any]:
    return {name: value for name, value in vars(batch).items() if not isinstance(value, Tensor)}


@given(st.lists(st.tuples(st.sampled_from(DTYPES), shapes), max_size=8), st.integers(0, 2**32))
def test_together_and_apart(kinds: list[tuple[torch.dtype, list[int]]], seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    tensors = []
    for dtype, shape in kinds:
        size = int(np.prod(shape)) * dtype.itemsize
        raw = torch.randint(0, 2 if dtype == torch.bool else 256, (size,), dtype=torch.uint8, generator=draw)
        tensors.append(raw.view(dtype).view(shape))
    buffer = join_buffer(tensors)
    assert buffer.dtype == torch.uint8
    assert buffer.ndim == 1
    assert len(buffer) < sum(tensor.nbytes for tensor in tensors) + 16 * len(tensors) + 1
    views = split_buffer(buffer, tensors)
    same(views, tensors)
    for view in views:
        assert view.storage_offset() * view.itemsize % 16 == 0
        assert view.is_contiguous()
        assert view.untyped_storage().data_ptr() == buffer.untyped_storage().data_ptr()


def test_what_is_not_contiguous_is_laid_out() -> None:
    values = torch.arange(24).view(4, 6)
    tensors = [values.T, values[:, ::2], values[1:, 3]]
    same(split_buffer(join_buffer(tensors), tensors), tensors)


def test_later_changes_stay_outside() -> None:
    values = torch.arange(5)
    buffer = join_buffer([values])
    values.zero_()
    assert split_buffer(buffer, [values])[0].tolist() == [0, 1, 2, 3, 4]


def test_a_batch_goes_through_one_buffer() -> None:
    for batch in batches():
        tensors = tensors_of(batch)
        same(split_buffer(join_buffer(tensors), tensors), tensors)


def test_to_another_device() -> None:
    for batch in batches():
        assert batch.to("cpu") is batch
        there = batch.to("meta")
        assert others_of(there) == others_of(batch)
        for one, other in zip(tensors_of(there), tensors_of(batch), strict=True):
            assert one.is_meta
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
    values = [torch.arange(3), torch.ones(2)]
    same(to_device(values, "cpu"), values)


@pytest.mark.gpu
def test_to_a_gpu_and_back() -> None:
    for batch in batches():
        there = batch.to("cuda")
        assert others_of(there) == others_of(batch)
        assert all(tensor.is_cuda for tensor in tensors_of(there))
        assert len({tensor.untyped_storage().data_ptr() for tensor in tensors_of(there)}) == 1
        same(tensors_of(there.to("cpu")), tensors_of(batch))
