"""Layers that are computed again in backward: the same bits, and what every layer makes of the tokens."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from common import WORDS
from torch import Tensor

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.errors import ConfigError
from minisbert.modules.features import Features
from minisbert.modules.recompute import recomputed
from minisbert.packing import pack

TEXTS = [" ".join(WORDS[:count]) for count in (3, 9, 1, 14, 9)]


def load(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(folder, device="cpu")


def gradients(model: SentenceTransformer, *, again: bool, precision: torch.dtype | None = None) -> list[Tensor]:
    """The gradients of a weighted sum of all sentence embeddings, with dropout, from seed 1; and that sum."""
    encoder = model.train().transformer.auto_model
    model.zero_grad()
    torch.manual_seed(1)
    batch = pack(model.transformer.tokenizer(TEXTS))
    with torch.autocast("cpu", precision, enabled=precision is not None):
        if again:
            with encoder.recomputing():
                sentences = model(Features(batch)).sentences
        else:
            sentences = model(Features(batch, layer_embeddings=[])).sentences  # layer by layer too
    value = (sentences * torch.arange(sentences.numel()).view_as(sentences)).sum()
    value.backward()  # outside of the blocks, as in training
    found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [value.detach(), torch.get_rng_state(), *found]


@pytest.mark.parametrize("precision", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize("architecture", ["bert", "mpnet", "distilbert", "roberta"])
def test_bits_are_the_same(architecture: str, precision: torch.dtype | None, tiny: Callable[[str], Path]) -> None:
    model = load(tiny(architecture))
    expected = gradients(model, again=False, precision=precision)
    got = gradients(model, again=True, precision=precision)
    assert len(got) == len(expected) > 10
    shared = model.transformer.auto_model.relative_attention_bias  # gradients of all layers, added in another order
    same = [torch.equal(a, b) for a, b in zip(got, expected, strict=True)]
    assert same.count(False) <= (shared is not None)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5 if precision is None else 2e-2, atol=1e-4)


def test_only_inputs_are_kept(tiny: Callable[[str], Path]) -> None:
    """What forward keeps for backward grows by the input of each layer, and by nothing else."""
    kept: list[weakref.ref[Tensor]] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(weakref.ref(copy := tensor.detach()))
        return copy

    model = load(tiny("bert")).train()
    batch = pack(model.transformer.tokenizer(TEXTS))
    with model.transformer.auto_model.recomputing(), torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        hidden = model.transformer.auto_model(batch)
    layers = len(model.transformer.auto_model.layers)
    sizes = [tensor.numel() for reference in kept if (tensor := reference()) is not None]
    assert len(sizes) < len(kept)  # what the first computation of a layer kept is gone
    assert sum(size == hidden.numel() for size in sizes) <= layers + 2  # and those of the embeddings
    assert max(sizes) <= max(hidden.numel(), model.transformer.auto_model.embeddings.word.weight.numel())


def test_gradients_of_inputs() -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    constant = torch.randn(4, 3, dtype=torch.float64)

    def product(x: Tensor, weight: Tensor, constant: Tensor) -> Tensor:
        return recomputed(
            lambda x, weight, constant: torch.tanh(x @ weight) * constant, x, weight, constant, device=x.device
        )

    assert torch.autograd.gradcheck(product, (x, weight, constant))
    with torch.no_grad():
        assert not product(x, weight, constant).requires_grad


@pytest.mark.parametrize("replay", [None, "6.2"])
def test_runs_end_with_the_same_weights(replay: Any, tiny: Callable[[str], Path]) -> None:
    ends = []
    for again in (False, True):
        model = load(tiny("bert"))
        config = TrainingConfig(epochs=2, batch_size=2, replay=replay, gradient_checkpointing=again, learning_rate=1e-3)
        rows = [(text, text) for text in TEXTS]
        Trainer(model, rows, loss=losses.MultipleNegativesRankingLoss(), config=config, show_progress_bar=False).train()
        ends.append([parameter.detach().clone() for parameter in model.parameters()])
    if replay:  # plain operations; packed training computes all layers in one call otherwise, in another order
        assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    else:
        assert max(float((a - b).abs().max()) for a, b in zip(*ends, strict=True)) < 1e-4


def test_foreign_encoders() -> None:
    transformers = pytest.importorskip("transformers")
    from minisbert.modules.foreign import ForeignEncoder

    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.ElectraConfig(**sizes, intermediate_size=48, embedding_size=32)
    encoder = ForeignEncoder(transformers.ElectraModel(config))

    def recomputes() -> bool:
        return any(getattr(module, "gradient_checkpointing", False) for module in encoder.modules())

    with encoder.recomputing():
        assert recomputes()
    assert not recomputes()
    encoder.model.supports_gradient_checkpointing = False
    with pytest.raises(ConfigError, match="expected False"), encoder.recomputing():
        pass


# ---- every layer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["bert", "mpnet", "distilbert", "roberta", "electra"])
def test_every_layer_is_that_of_transformers(architecture: str, tiny: Callable[[str], Path]) -> None:
    transformers = pytest.importorskip("transformers")
    model = load(tiny("bert" if architecture == "electra" else architecture))
    tokens = model.transformer.tokenizer(TEXTS)
    encoder: Any = model.transformer.auto_model
    if architecture == "electra":
        from minisbert.modules.foreign import ForeignEncoder

        sizes = {"vocab_size": encoder.vocabulary, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        theirs = transformers.ElectraModel(
            transformers.ElectraConfig(**sizes, intermediate_size=48, embedding_size=32)
        ).eval()
        encoder = ForeignEncoder(theirs)
    else:
        theirs = transformers.AutoModel.from_pretrained(tiny(architecture)).eval()
    layers: list[Tensor] = []
    with torch.inference_mode():
        last = encoder(pack(tokens, torch.tensor([1]).numpy()), layers)
        expected = theirs(
            torch.from_numpy(tokens.ids[tokens.offsets[1] : tokens.offsets[2]])[None].long(), output_hidden_states=True
        )
    assert len(layers) == len(expected.hidden_states) == 3
    assert torch.equal(layers[-1], last)
    for layer, wanted in zip(layers, expected.hidden_states, strict=True):
        torch.testing.assert_close(layer, wanted[0], rtol=2e-5, atol=2e-5)
