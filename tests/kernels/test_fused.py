"""The fused CPU operations against their plain definitions in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import batch_of, close, dropout_mask, exact_attention
from minisbert.kernels.cpu_ops import fused, library
from torch import Tensor

from minisbert.errors import ConfigError, InputError
from minisbert.kernels import AdamWStep, Tables, plain
from minisbert.packing import PackedBatch

FORWARD, BACKWARD = 2e-6, 1e-5  # largest difference, as a share of the largest value
LENGTHS = (1, 2, 3, 15, 16, 17, 31, 33, 64, 65, 100, 257, 512)


@pytest.fixture(autouse=True)
def poisoned(request: pytest.FixtureRequest) -> Iterator[None]:
    """New memory holds no numbers: what is not written shows."""
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def shifted(value: Tensor) -> Tensor:
    """The same values where no vector is aligned."""
    room = torch.empty(value.numel() + 1, dtype=value.dtype)
    moved = room[1:].view(value.shape)
    return moved.copy_(value)


def next_seed(seed: int) -> int:
    """The seed that the next call draws after `torch.manual_seed(seed)`, which is called."""
    torch.manual_seed(seed)
    drawn = fused.draw_seed()
    torch.manual_seed(seed)
    return drawn


def slopes(function: Callable[..., Tensor], *inputs: Tensor | None) -> list[Tensor]:
    """The output, and the slope of its weighted sum with respect to each input."""
    leaves = [None if value is None else value.clone().requires_grad_(True) for value in inputs]
    output = function(*leaves)
    weights = torch.cos(torch.arange(output.numel(), dtype=torch.float64)).view_as(output).to(output.dtype)
    output.backward(weights)
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf is not None and leaf.grad is not None)]


ATTENTION = [
    *(([length], 2, 16) for length in LENGTHS),
    *(([length], 1, 32) for length in (1, 17, 64, 257)),
    ([3, 1], 12, 32),
    ([5, 18, 33], 3, 48),
    ([31, 100], 2, 64),
    ([16, 70], 1, 128),
    ([140], 1, 112),
    ([2, 7, 7, 9, 11, 14, 14, 15, 20, 33, 40] * 4, 4, 32),
]


@pytest.mark.parametrize(("lengths", "heads", "head_dim"), ATTENTION)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_attention(with_native: None, lengths: list[int], heads: int, head_dim: int, dropout: float) -> None:
    batch = batch_of(lengths)
    torch.manual_seed(0)
    qkv = shifted(torch.randn(batch.tokens, 3 * heads * head_dim) * 2)
    seed = next_seed(7) if dropout else 0
    exact = slopes(lambda x: exact_attention(x, batch, heads, dropout, seed), qkv.double())
    got = slopes(lambda x: fused.attention_qkv(x, batch, heads=heads, dropout=dropout), qkv)
    close(got[0], exact[0], FORWARD)
    close(got[1], exact[1], BACKWARD)
    if not dropout:
        close(plain.attention_qkv(qkv.double(), batch, heads=heads), exact[0], 1e-12)


def test_attention_with_large_scores(with_native: None) -> None:
    batch = batch_of([40])
    qkv = torch.randn(40, 3 * 32) * 30
    close(fused.attention_qkv(qkv, batch, heads=2), exact_attention(qkv.double(), batch, 2, 0.0, 0), 1e-4)
    qkv[3, 40] = torch.nan
    assert bool(fused.attention_qkv(qkv, batch, heads=2)[:, :16].isnan().all())


@pytest.mark.parametrize("dim", [16, 32, 48, 384, 768])
@pytest.mark.parametrize("tokens", [1, 3, 33, 100])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("with_residual", [True, False])
def test_add_norm(with_native: None, dim: int, tokens: int, dropout: float, with_residual: bool) -> None:
    torch.manual_seed(dim + tokens)
    x, residual = shifted(torch.randn(tokens, dim) + 3), shifted(torch.randn(tokens, dim))
    weight, bias = shifted(torch.randn(dim)), shifted(torch.randn(dim))
    weight[::3] = 0
    inputs = [x, residual if with_residual else None, weight, bias]
    mask = dropout_mask(next_seed(3), 0, tokens, dim, dropout).double()

    def exact(x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
        return plain.add_norm(x * mask / (1 - dropout), residual, weight, bias, eps=1e-12)

    doubles = [None if value is None else value.double() for value in inputs]
    expected = slopes(exact, *doubles)
    torch.manual_seed(3)
    got = slopes(lambda *values: fused.add_norm(*values, eps=1e-12, dropout=dropout), *inputs)
    close(got[0], expected[0], FORWARD)
    assert len(got) == len(expected) == 4 + with_residual
    for slope, right in zip(got[1:], expected[1:], strict=True):
        close(slope, right, BACKWARD)
    torch.manual_seed(3)
    assert torch.equal(fused.add_norm(*inputs, eps=1e-12, dropout=dropout), got[0])


def test_add_norm_gives_only_the_slopes_asked_for(with_native: None) -> None:
    x, weight, bias = torch.randn(3, 32), torch.randn(32), torch.randn(32)
    residual = torch.randn(3, 32, requires_grad=True)
    fused.add_norm(x, residual, weight, bias, eps=1e-5, dropout=0.5).sum().backward()
    assert residual.grad is not None
    assert x.grad is weight.grad is None


def test_add_norm_of_nearly_equal_values(with_native: None) -> None:
    x, weight, bias = 100 + torch.randn(4, 384) * 1e-2, torch.ones(384), torch.zeros(384)
    for eps in (1e-12, 1e-5):
        got = fused.add_norm(x, None, weight, bias, eps=eps)
        close(got, plain.add_norm(x.double(), None, weight.double(), bias.double(), eps=eps), 2e-3)
    constant = fused.add_norm(torch.full((1, 384), 0.1), None, weight, bias, eps=1e-12)
    assert float(constant.abs().max()) < 0.1


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 100_003])
def test_gelu(with_native: None, count: int) -> None:
    x = shifted(torch.linspace(-12, 12, count))
    got, expected = slopes(fused.gelu, x), slopes(plain.gelu, x.double())
    for mine, right in zip(got, expected, strict=True):
        close(mine, right, 3e-7)


def test_gelu_is_exact_near_zero_and_far_out(with_native: None) -> None:
    small = torch.logspace(-30, -3, 1000)
    for x in (small, -small):
        torch.testing.assert_close(fused.gelu(x).double(), plain.gelu(x.double()), rtol=1e-6, atol=0)
    below = torch.linspace(-5, -1, 1000)
    torch.testing.assert_close(fused.gelu(below).double(), plain.gelu(below.double()), rtol=1e-5, atol=0)
    far = torch.tensor([-1e30, -100.0, -20.0, 20.0, 100.0, 1e30, 3e38], requires_grad=True)
    out = fused.gelu(far)
    out.sum().backward()
    torch.testing.assert_close(out.detach(), F.relu(far.detach()), rtol=0, atol=1e-30)
    assert far.grad.tolist() == pytest.approx([0, 0, 0, 1, 1, 1, 1], abs=1e-30)
    assert fused.gelu(torch.tensor([torch.nan, 1.0]))[0].isnan()
    assert fused.gelu(torch.tensor([torch.inf])).item() == math.inf


@pytest.mark.parametrize("lengths", [[1], [3, 17], [1, 2, 5, 64, 300]])
def test_mean_pool(with_native: None, lengths: list[int]) -> None:
    batch = batch_of(lengths)
    values = torch.randn(batch.tokens, 48)
    values[0] = 0
    got = fused.mean_pool(values, batch)
    close(got, plain.mean_pool(values.double(), batch), FORWARD)


def test_adamw_rows_are_those_of_torch(with_native: None) -> None:
    torch.manual_seed(0)
    table = torch.randn(20, 48)
    rows = torch.tensor([1, 4, 5, 19])
    mine = table.clone()
    mean, square = torch.zeros_like(mine), torch.zeros_like(mine)
    theirs = table[rows].clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([theirs], lr=2e-3, betas=(0.9, 0.99), eps=1e-6, weight_decay=0, fused=True)
    for step in range(1, 6):
        grad = torch.randn(4, 48) * 0.1**step
        theirs.grad = grad.clone()
        optimizer.step()
        fused.adamw_rows_(mine, grad, mean, square, rows, AdamWStep(2e-3, 0.9, 0.99, 1e-6, step))
        torch.testing.assert_close(mine[rows], theirs.detach(), rtol=3e-7, atol=1e-9)
    state = optimizer.state[theirs]
    torch.testing.assert_close(mean[rows], state["exp_avg"], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(square[rows], state["exp_avg_sq"], rtol=1e-6, atol=1e-14)
    fma = torch.backends.cpu.get_cpu_capability().startswith("AVX") and library.level() != "portable"
    if fma:  # both round a * b + c once
        assert torch.equal(mine[rows], theirs.detach())
    others = [row for row in range(20) if row not in rows]
    assert torch.equal(mine[others], table[others])
    for wrong in ([3, 3, 4, 5], [3, 2, 4, 5], [-1, 2, 4, 5], [1, 2, 4, 20]):
        before = mine.clone()
        with pytest.raises(InputError, match="do not rise"):
            fused.adamw_rows_(mine, grad, mean, square, torch.tensor(wrong), AdamWStep(1e-3, 0.9, 0.99, 1e-6, 1))
        assert torch.equal(mine, before)


def test_statistics_of_the_mask(with_native: None) -> None:
    rows, columns = 2000, 500
    spread = 1 / math.sqrt(rows * columns)
    for probability in (0.1, 0.5):
        mask = dropout_mask(12345, 0, rows, columns, probability).float()
        sigma = math.sqrt(probability * (1 - probability))
        assert abs(float(mask.mean()) - (1 - probability)) < 5 * sigma * spread
        assert float((mask.mean(0) - 1 + probability).abs().max()) < 5.5 * sigma / math.sqrt(rows)
        assert float((mask.mean(1) - 1 + probability).abs().max()) < 5.5 * sigma / math.sqrt(columns)
        assert len(torch.unique(mask, dim=0)) == rows
        centred = (mask - 1 + probability) / sigma
        for shift in ((0, 1), (1, 0), (0, 16), (12, 0), (1, 1)):  # neighbours know nothing of each other
            assert abs(float((centred * centred.roll(shift, (0, 1))).mean())) < 5 * spread
        for other_seed in (12346, 12345 + 2**32):
            other = (dropout_mask(other_seed, 0, rows, columns, probability).float() - 1 + probability) / sigma
            assert abs(float((centred * other).mean())) < 5 * spread
        further = dropout_mask(12345, 100, rows, columns, probability).float()
        assert torch.equal(further[:-100], mask[100:])


def test_the_seed_is_drawn_from_torch(with_native: None) -> None:
    x, weight, bias = torch.randn(9, 32), torch.ones(32), torch.zeros(32)

    def draw() -> Tensor:
        return fused.add_norm(x, None, weight, bias, eps=1e-5, dropout=0.5)

    torch.manual_seed(1)
    first, state, second = draw(), torch.get_rng_state(), draw()
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(draw(), second)
    before = torch.get_rng_state()
    fused.add_norm(x, None, weight, bias, eps=1e-5)
    assert torch.equal(torch.get_rng_state(), before)


def test_results_do_not_depend_on_the_number_of_threads(with_native: None) -> None:
    torch.manual_seed(0)
    batch = batch_of([1, 3, 200, 5, 64, 64, 17, 300, 14, 14] * 2)
    qkv, x, residual = torch.randn(batch.tokens, 96 * 3), torch.randn(batch.tokens, 96), torch.randn(batch.tokens, 96)
    weight, bias = torch.randn(96), torch.randn(96)
    word, grad = torch.randn(1000, 96), torch.randn(700, 96)
    rows = torch.arange(100, 800)

    def everything() -> list[Tensor]:
        torch.manual_seed(5)
        param, mean, square = word.clone(), torch.zeros_like(word), torch.zeros_like(word)
        fused.adamw_rows_(param, grad, mean, square, rows, AdamWStep(1e-3, 0.9, 0.99, 1e-6, 1))
        return [
            *slopes(lambda x: fused.attention_qkv(x, batch, heads=3, dropout=0.1), qkv),
            *slopes(lambda *v: fused.add_norm(*v, eps=1e-12, dropout=0.1), x, residual, weight, bias),
            *slopes(fused.gelu, x),
            fused.mean_pool(x, batch),
            dropout_mask(1, 0, 1000, 100, 0.5),
            *(param, mean, square),
        ]

    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(everything())
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_no_tokens(with_native: None) -> None:
    empty = PackedBatch(
        *(torch.zeros(0, dtype=torch.int64) for _ in range(4)), torch.zeros(1, dtype=torch.int32), (), torch.zeros(0)
    )
    weight, nothing = torch.ones(32), torch.zeros(0, 32)
    assert slopes(lambda x: fused.attention_qkv(x, empty, heads=2), torch.zeros(0, 96))[1].shape == (0, 96)
    out, d_x, d_weight, d_bias = slopes(
        lambda x, w, b: fused.add_norm(x, None, w, b, eps=1e-5, dropout=0.1), nothing, weight, weight
    )
    assert out.shape == d_x.shape == (0, 32)
    assert d_weight.eq(0).all()
    assert d_bias.eq(0).all()
    assert fused.mean_pool(nothing, empty).shape == (0, 32)
    assert dropout_mask(0, 0, 0, 5, 0.1).shape == (0, 5)


def test_an_empty_text_gives_zeros(with_native: None) -> None:
    offsets = torch.tensor([0, 2, 2, 3], dtype=torch.int32)
    lengths = torch.tensor([2, 0, 1])
    batch = PackedBatch(torch.zeros(3), torch.zeros(3), torch.tensor([0, 0, 2]), lengths, offsets, (), torch.arange(3))
    values = torch.randn(3, 32)
    got = fused.mean_pool(values, batch)
    close(got, plain.mean_pool(values, batch), FORWARD)
    assert got[1].eq(0).all()
    assert fused.attention_qkv(torch.randn(3, 96), batch, heads=2).isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: fused.gelu(x.t()), "not contiguous"),
        (lambda x: fused.gelu(x.double()), "torch.float64"),
        (lambda x: fused.add_norm(x, x[:1], x[0], x[0], eps=1e-5), "got residual"),
        (lambda x: fused.add_norm(x, None, x[0, :16], x[0], eps=1e-5), "got weight"),
        (lambda x: fused.add_norm(x, None, x[0], x[0], eps=1e-5, dropout=1.0), "got dropout 1.0"),
        (lambda x: fused.mean_pool(x[:, :30].contiguous(), batch_of([4])), "multiple of 16"),
        (lambda x: fused.attention_qkv(torch.zeros(3, 96), batch_of([3]), heads=4), "for 4 heads"),
        (lambda x: fused.attention_qkv(torch.zeros(3, 96), batch_of([4]), heads=2), "end at the 3 tokens"),
        (lambda x: fused.add_norm(x.bfloat16(), None, x[0], x[0], eps=1e-5), "torch.bfloat16"),
    ],
)
def test_what_cannot_be_taken(with_native: None, call: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        call(torch.zeros(4, 32))
    assert "\n" not in str(caught.value)


def test_sizes_that_are_supported() -> None:
    assert all(fused.supports(dim, heads) for dim, heads in ((384, 12), (768, 12), (1024, 16), (16, 1), (48, 3)))
    assert not any(fused.supports(dim, heads) for dim, heads in ((384, 5), (36, 3), (30, 1), (512, 2), (4112, 1)))


@pytest.mark.parametrize(("tokens", "dim"), [(1, 16), (7, 48), (33, 384), (129, 400)])
@pytest.mark.parametrize("dropout", [0.1, 0.75])
def test_dropout(with_native: None, tokens: int, dim: int, dropout: float) -> None:
    torch.manual_seed(0)
    x = shifted(torch.randn(tokens, dim))
    kept = dropout_mask(next_seed(11), 0, tokens, dim, dropout) / (1 - dropout)
    torch.manual_seed(11)
    got = slopes(lambda value: fused.drop(value, dropout=dropout), x)
    expected = slopes(lambda value: value * kept, x)
    for one, other in zip(got, expected, strict=True):
        close(one, other, FORWARD)


def test_embeddings_are_dropped(with_native: None) -> None:
    operations, batch = fused.Fused(), batch_of([3, 30])
    tables = Tables(torch.nn.Embedding(5, 32), torch.nn.Embedding(40, 32), None)
    norm = torch.nn.LayerNorm(32)
    torch.manual_seed(2)
    dropped = operations.embed(batch, batch.positions, tables, norm, dropout=0.5)
    whole = operations.embed(batch, batch.positions, tables, norm, dropout=0.0)
    assert 0.4 < (dropped == 0).float().mean() < 0.6
    torch.testing.assert_close(dropped, torch.where(dropped == 0, 0, whole * 2))
