"""Packing, batches by token budget, padding and unpadding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from minisbert.packing import pack, pack_padded, pad, token_budget_batches, unpad
from minisbert.text import TokenizedTexts

lengths_of_texts = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def tokenized(lengths: list[int]) -> TokenizedTexts:
    return TokenizedTexts(np.arange(sum(lengths), dtype=np.int32), np.array(lengths, np.int64), 0)


@given(lengths_of_texts, st.randoms(use_true_random=False))
def test_pack_keeps_every_token_and_leads_back(lengths: list[int], draw: object) -> None:
    texts = tokenized(lengths)
    rows = np.array(draw.sample(range(len(lengths)), draw.randint(1, len(lengths))))  # type: ignore[attr-defined]
    batch = pack(texts, rows)
    assert batch.texts == len(rows)
    assert batch.tokens == sum(lengths[row] for row in rows)
    pieces = torch.split(batch.input_ids, batch.lengths.tolist())
    for place, row in zip(batch.restore.tolist(), rows, strict=True):
        start = texts.offsets[row]
        assert pieces[place].tolist() == list(range(start, start + lengths[row]))
    for run in batch.runs:
        assert set(batch.positions[run.rows].tolist()) == set(range(run.length))
    assert batch.runs[-1].rows.stop == batch.tokens
    assert batch.max_length == max(lengths[row] for row in rows)


@given(lengths_of_texts, st.integers(1, 100))
def test_pieces_are_the_whole(lengths: list[int], most: int) -> None:
    batch = pack(tokenized(lengths))
    pieces = batch.cut(most)
    assert all(piece.tokens <= most or piece.texts == 1 for piece in pieces)
    assert torch.equal(torch.cat([piece.input_ids for piece in pieces]), batch.input_ids)
    assert torch.equal(torch.cat([piece.lengths for piece in pieces]), batch.lengths)
    for piece in pieces:
        alone = pack(TokenizedTexts(piece.input_ids.numpy().astype(np.int32), piece.lengths.numpy(), 0))
        for name in ("positions", "text_index", "offsets", "restore", "runs"):
            mine, right = getattr(piece, name), getattr(alone, name)
            assert torch.equal(mine, right) if isinstance(right, torch.Tensor) else mine == right, name


def test_token_types_follow_their_tokens() -> None:
    ids, types = np.array([7, 8, 9, 5, 6], np.int32), np.array([0, 1, 1, 0, 0], np.int32)
    texts = TokenizedTexts(ids, np.array([3, 2]), 0, types)
    batch = pack(texts)
    assert batch.input_ids.tolist() == [5, 6, 7, 8, 9]
    assert batch.token_types is not None
    assert batch.token_types.tolist() == [0, 0, 0, 1, 1]
    assert pack(texts, np.array([1])).token_types is None  # a single text alone pays nothing
    joined = TokenizedTexts.join([tokenized([2]), texts])
    assert joined.types is not None
    assert joined.types.tolist() == [0, 0, 0, 1, 1, 0, 0]
    assert TokenizedTexts.join([tokenized([2]), tokenized([1])]).types is None


@given(lengths_of_texts, st.integers(1, 100), st.one_of(st.none(), st.integers(1, 7)))
def test_budget_batches_hold_each_row_once(lengths: list[int], budget: int, most: int | None) -> None:
    values = np.array(lengths)
    batches = token_budget_batches(values, max_tokens=budget, max_texts=most)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for rows in batches:
        assert values[rows].sum() <= budget or len(rows) == 1
        assert most is None or len(rows) <= most
    order = values[np.concatenate(batches)]
    assert (np.diff(order) <= 0).all()


@given(lengths_of_texts)
def test_pad_and_unpad_are_inverse(lengths: list[int]) -> None:
    batch = pack(tokenized(lengths))
    hidden = torch.randn(batch.tokens, 3)
    padded, mask = pad(hidden, batch)
    assert padded.shape == (len(lengths), max(lengths), 3)
    assert mask.sum(1).tolist() == batch.lengths.tolist()
    assert not padded[~mask].any()
    assert torch.equal(unpad(padded, batch), hidden)


def test_mini_batches_of_padded_texts() -> None:
    lengths = [3, 1, 2, 6, 1]
    texts = [np.arange(1, length + 1, dtype=np.int32) for length in lengths]
    batch = replace(pack_padded(texts, padding=0), prompt_length=2)

    def shapes(most: int, tokens: int | None, *, trimmed: bool) -> list[tuple[int, ...]]:
        parts = batch.cut_padded(most, tokens=tokens, trimmed=trimmed)
        ids = torch.cat([part.input_ids[part.mask.flatten()] for part in parts])
        assert ids.tolist() == np.concatenate(texts).tolist()
        assert all(part.prompt_length == 2 and part.tokens == part.mask.numel() for part in parts)
        return [tuple(part.mask.shape) for part in parts]

    assert shapes(2, None, trimmed=False) == [(2, 6), (2, 6), (1, 6)]
    assert shapes(2, None, trimmed=True) == [(2, 3), (2, 6), (1, 1)]
    assert shapes(9, None, trimmed=True) == [(5, 6)]
    assert shapes(9, 4, trimmed=True) == [(2, 3), (1, 2), (1, 6), (1, 1)]
