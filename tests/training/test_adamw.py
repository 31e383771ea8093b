"""AdamW on the CPU: torch's own to the bit, in its format, without torch's compiler."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from minisbert.training.adamw import AdamW

SETTINGS: dict[str, Any] = {"lr": 3e-2, "betas": (0.9, 0.99), "eps": 1e-7}


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    shapes = [(5, 7), (64, 33), (1,), (3,), (128,)]
    found = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    return [*found, nn.Parameter(torch.randn(4, dtype=torch.float64))]


def groups(values: list[nn.Parameter]) -> list[dict[str, Any]]:
    return [{"params": values[:2], "weight_decay": 0.1}, {"params": values[2:], "weight_decay": 0.0, "lr": 1e-3}]


def run(optimizer: AdamW | torch.optim.Optimizer, values: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        for number, value in enumerate(values):
            value.grad = torch.randn_like(value) if (number + step) % 5 else None  # some have none now and then
        optimizer.step()
        optimizer.zero_grad()


def theirs_of(values: list[nn.Parameter]) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups(values), **SETTINGS, fused=True)


def test_it_is_torch_s_to_the_bit() -> None:
    ours, theirs = parameters(), parameters()
    run(AdamW(groups(ours), **SETTINGS), ours, range(9))
    run(theirs_of(theirs), theirs, range(9))
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("saved", ["ours", "torch's"])
@pytest.mark.parametrize("loaded", ["ours", "torch's"])
def test_a_saved_state_goes_on(saved: str, loaded: str) -> None:
    makers: dict[str, Callable[[list[nn.Parameter]], Any]] = {
        "ours": lambda values: AdamW(groups(values), **SETTINGS),
        "torch's": theirs_of,
    }
    expected = parameters()
    run(theirs_of(expected), expected, range(8))
    values = parameters()
    first = makers[saved](values)
    run(first, values, range(4))
    second = makers[loaded](values)
    second.load_state_dict(first.state_dict())
    run(second, values, range(4, 8))
    assert all(torch.equal(one, other) for one, other in zip(values, expected, strict=True))


def test_groups_that_do_not_fit() -> None:
    values = parameters()
    state = AdamW(groups(values), **SETTINGS).state_dict()
    with pytest.raises(ValueError, match="other groups"):
        AdamW([{"params": values, "weight_decay": 0.0}], **SETTINGS).load_state_dict(state)


def test_gradients_are_dropped_or_zero() -> None:
    values = parameters()
    optimizer = AdamW(groups(values), **SETTINGS)
    values[0].grad = torch.ones_like(values[0])
    optimizer.zero_grad(set_to_none=False)
    assert values[0].grad is not None
    assert not values[0].grad.any()
    optimizer.zero_grad()
    assert values[0].grad is None


def test_training_does_not_import_the_compiler(tiny: Callable[[str], Path]) -> None:
    code = f"""
import sys
from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
model = SentenceTransformer({str(tiny("bert"))!r}, device="cpu")
rows = {{"a": ["cat", "dog", "sun", "sea"], "b": ["mat", "run", "sky", "wave"]}}
config = TrainingConfig(batch_size=2, max_steps=2)
Trainer(model, rows, loss=losses.MultipleNegativesRankingLoss(), config=config, show_progress_bar=False).train()
print([name for name in ("torch._dynamo", "torch._inductor") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
