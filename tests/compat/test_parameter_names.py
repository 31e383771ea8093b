"""Names of parameters, modules and tensors: those of transformers, in models and in losses that hold them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import ARCHITECTURES
from torch import nn

import minisbert
from minisbert.compat import losses
from minisbert.compat.model import SentenceTransformer

TEXTS = ["a cat sat on the mat", "dog"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_names_are_those_of_the_checkpoint(tiny: Callable[[str], Path], architecture: str) -> None:
    folder = tiny(architecture)
    model, own = SentenceTransformer(folder, device="cpu"), minisbert.SentenceTransformer(str(folder), device="cpu")
    expected = {f"0.model.{name}": value for name, value in model.transformer.checkpoint_parameters().items()}
    named = dict(model.named_parameters())
    assert {*named} == {*expected} == {*model.state_dict()}
    assert all(named[name] is expected[name] for name in named)
    assert list(model.parameters()) == list(model.transformer.encoder.parameters())  # in the same order
    assert [name.removeprefix("model.") for name, _ in losses.CoSENTLoss(model).named_parameters()] == [*named]
    assert len({id(one) for one in model.modules()}) == len(list(model.modules()))
    assert {type(one) for one in own.modules() if isinstance(one, nn.Dropout)} <= {type(one) for one in model.modules()}


@pytest.mark.parametrize("old", ["0.model.", "0.auto_model.", None])
def test_weights_of_any_version_can_be_loaded(tiny: Callable[[str], Path], old: str | None) -> None:
    folder = tiny("bert")
    source: nn.Module = SentenceTransformer(folder, device="cpu")
    if old is None:
        source = minisbert.SentenceTransformer(str(folder), device="cpu")
    given = {name.replace("0.model.", old or "", 1): value * 0.5 for name, value in source.state_dict().items()}
    given[f"{old or '0.model.'}pooler.dense.bias"] = torch.zeros(32)
    loaded = SentenceTransformer(folder, device="cpu")
    loaded.load_state_dict(given)
    for before, after in zip(source.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(before * 0.5, after)
    with pytest.raises(RuntimeError, match="wrong"):
        loaded.load_state_dict({**given, "0.model.wrong": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="Missing"):
        loaded.load_state_dict({})


def test_norms_are_not_decayed_by_old_fit(tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu")
    decayed = [
        name
        for name, _ in losses.CoSENTLoss(model).named_parameters()
        if not any(part in name for part in ("bias", "LayerNorm.bias", "LayerNorm.weight"))
    ]
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)]
    assert norms
    assert not [name for name in decayed if name.rpartition(".")[0].removeprefix("model.") in norms]
