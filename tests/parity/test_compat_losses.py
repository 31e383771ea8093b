"""Losses of compat equal the reference's for feature dicts, through models of equal weights: value and gradients."""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from feature_losses import CALLS, Call, labels_of, texts_of, total
from torch import Tensor, nn

from minisbert import similarity
from minisbert.compat import losses
from minisbert.compat.model import SentenceTransformer
from minisbert.losses import loss_names

reference = pytest.importorskip("sentence_transformers")
reference_losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

# The reference gives a decoder of another vocabulary the tokens of the model: see the table of differences.
SAME = [call for call in CALLS if call.name != "another decoder"]
BOUND = 2e-6  # of the largest element


def library(of: Any, made: Any, util: Any, tiny: Callable[[str], Path]) -> SimpleNamespace:
    """What a library has for the calls."""
    model, guide, other = (made(str(tiny(name)), device="cpu").eval() for name in ("bert", "bert", "roberta"))
    with torch.no_grad():
        for parameter in guide.parameters():  # another one than the model
            parameter.mul_(0.7)
    decoder = str(tiny("roberta"))
    return SimpleNamespace(losses=of, util=util, model=model, guide=guide, other_guide=other, dim=32, decoder=decoder)


@pytest.fixture(scope="module")
def both(tiny: Callable[[str], Path]) -> tuple[SimpleNamespace, SimpleNamespace]:
    ours = library(losses, SentenceTransformer, similarity, tiny)
    theirs = library(reference_losses, reference.SentenceTransformer, reference.util, tiny)
    return ours, theirs


def own_modules(loss: nn.Module, model: nn.Module) -> list[nn.Parameter]:
    """Parameters of a loss that are not the model's, in order."""
    known = {*model.parameters()}
    return [one for one in loss.parameters() if one not in known and one.requires_grad]


def computed(call: Call, it: SimpleNamespace) -> tuple[Tensor, Tensor]:
    """Value and gradient of the word embeddings of the model, which all tokens reach."""
    torch.manual_seed(0)
    loss = call.made(it).eval()
    if call.loss == "DenoisingAutoEncoderLoss":  # its layers of attention to the encoder are drawn anew
        for name, parameter in loss.decoder.named_parameters():
            if "crossattention" in name.lower() or "lm_head" in name or "cls" in name:
                torch.manual_seed(sum(map(ord, name)))
                parameter.data.copy_(torch.randn_like(parameter) * 0.1)
    features = [it.model.tokenize(texts) for texts in texts_of(call)]
    random.seed(1)
    value = total(loss(features, labels_of(call, it.dim)))
    it.model.zero_grad()
    value.backward()
    table = next(one for one in it.model.parameters() if one.shape[0] > 100)
    return value.detach(), table.grad.clone()


@pytest.mark.parametrize("call", SAME, ids=str)
def test_value_and_gradients(
    call: Call, both: tuple[SimpleNamespace, SimpleNamespace], compare: Callable[..., None]
) -> None:
    ours, theirs = both
    if call.loss == "DenoisingAutoEncoderLoss":  # which changes the model
        ours, theirs = (SimpleNamespace(**{**vars(it), "model": copy.deepcopy(it.model)}) for it in both)
    value, gradient = computed(call, ours)
    expected, expected_gradient = computed(call, theirs)
    compare("compat: losses of feature dicts", abs(float(value - expected)) / max(abs(float(expected)), 0.25), BOUND)
    largest = float(expected_gradient.abs().max())
    assert largest > 0
    difference = float((gradient - expected_gradient).abs().max())
    compare("compat: gradients of losses of feature dicts", difference / max(largest, 0.01), 10 * BOUND)


def shape_of(function: Any) -> list[tuple[str, str, str]]:
    """Names, kinds and defaults of parameters; of functions and modules the names of their classes."""

    def shown(default: Any) -> str:
        if isinstance(default, nn.Module):
            return type(default).__name__
        return "function" if callable(default) and default is not inspect.Parameter.empty else repr(default)

    return [(one.name, one.kind.name, shown(one.default)) for one in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", loss_names())
def test_signatures(name: str) -> None:
    ours, theirs = getattr(losses, name), getattr(reference_losses, name)
    assert shape_of(ours.__init__) == shape_of(theirs.__init__)
    if name != "MegaBatchMarginLoss":  # which the reference gives a forward in its constructor
        assert [one[0] for one in shape_of(ours.forward)][:3] == [one[0] for one in shape_of(theirs.forward)][:3]


def test_all_names() -> None:
    assert set(losses.__all__) == set(reference_losses.__all__)
    assert {str(call.loss) for call in CALLS} == set(loss_names())


PUBLIC = {  # of the gradient cache and of unknown use outside the library: not offered
    "calculate_loss",
    "calculate_loss_and_cache_gradients",
    "embed_minibatch",
    "embed_minibatch_iter",
    "forward_cached",
    "forward_mini_batched",
    "forward_non_mini_batched",
    "retokenize",
}


@pytest.mark.parametrize("call", SAME, ids=str)
def test_public_attributes(call: Call, both: tuple[SimpleNamespace, SimpleNamespace]) -> None:
    ours, theirs = (call.made(it) for it in both)
    kind = type(theirs)
    names = {name for base in kind.__mro__[:-2] for name in vars(base) if not name.startswith("_")} - PUBLIC
    names -= set(dir(nn.Module)) - {"forward"}
    assert [name for name in sorted(names) if not hasattr(ours, name)] == []
    config, expected = ours.get_config_dict(), theirs.get_config_dict()
    for values in (config, expected):
        values.pop("guide", None)
    assert config == expected
    assert ours.citation.strip() == (getattr(theirs, "citation", None) or "").strip()
    held = {*both[0].model.parameters()}
    assert held <= {*ours.parameters()} or call.loss == "DenoisingAutoEncoderLoss"


def test_masks_of_triplets() -> None:
    labels = torch.tensor([0, 1, 0, 2, 1, 0])
    for name in ("get_triplet_mask", "get_anchor_positive_triplet_mask", "get_anchor_negative_triplet_mask"):
        ours, theirs = getattr(losses.BatchHardTripletLoss, name), getattr(reference_losses.BatchHardTripletLoss, name)
        assert torch.equal(ours(labels), theirs(labels))


def test_computed_from_embeddings(both: tuple[SimpleNamespace, SimpleNamespace]) -> None:
    for call in SAME:
        ours, theirs = (call.made(it) for it in both)
        if not hasattr(theirs, "compute_loss_from_embeddings") or call.loss in ("MSELoss", "EmbedDistillLoss"):
            continue
        if call.loss == "SoftmaxLoss":
            continue
        torch.manual_seed(1)
        parts = [torch.randn(7, 32) for _ in range(call.columns)]
        labels = labels_of(call, 32)
        value = total(ours.compute_loss_from_embeddings(list(parts), labels))
        expected = total(theirs.compute_loss_from_embeddings(list(parts), labels))
        torch.testing.assert_close(value, expected, rtol=2e-6, atol=2e-6, msg=str(call))
    ours, theirs = (it.losses.EmbedDistillLoss(it.model) for it in both)
    parts = [torch.randn(7, 32) for _ in range(4)]
    values = [one.compute_loss_from_embeddings(parts[:2], parts[2:]) for one in (ours, theirs)]
    torch.testing.assert_close(*values)
