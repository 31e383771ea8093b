"""Padded feature dictionaries run through our packed encoder, and come back padded and in order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from minisbert.compat.model import SentenceTransformer
from minisbert.compat.models.features import Padding
from minisbert.errors import InputError, InputTypeError
from minisbert.modules.features import Features

CPU = torch.device("cpu")
TEXTS = ["a cat sat on the mat", "dog", "the sea is blue and the sky is red"]


@pytest.fixture
def model(tiny: Callable[[str], Path]) -> SentenceTransformer:
    return SentenceTransformer(tiny("bert"), device="cpu")


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "mpnet"])
def test_embeddings_are_those_of_encode(architecture: str, tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny(architecture), device="cpu")
    features = model.tokenize(TEXTS)
    result = model(features)
    assert result is features
    expected = model.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(result["sentence_embedding"], expected, atol=1e-6, rtol=0)
    tokens = model.encode(TEXTS, output_value="token_embeddings")
    for row, own in enumerate(tokens):
        torch.testing.assert_close(result["token_embeddings"][row, : len(own)], own, atol=1e-6, rtol=0)
        assert not result["token_embeddings"][row, len(own) :].any()


def test_gradients_reach_the_weights(model: SentenceTransformer) -> None:
    model.train()
    model(model.tokenize(TEXTS))["sentence_embedding"].sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_mask_and_the_types_may_be_left_out(model: SentenceTransformer) -> None:
    features = model.tokenize(["a cat"])
    bare = model({"input_ids": features["input_ids"]})["sentence_embedding"]
    torch.testing.assert_close(bare, model(features)["sentence_embedding"])


def test_types_of_tokens_count(model: SentenceTransformer) -> None:
    pair = model.tokenize([("a cat", "the dog")])
    assert pair["token_type_ids"].any()
    expected = model.encode([("a cat", "the dog")], convert_to_tensor=True)
    torch.testing.assert_close(model(pair)["sentence_embedding"], expected, atol=1e-6, rtol=0)


def test_a_prompt_is_left_out_of_pooling(model: SentenceTransformer) -> None:
    model.set_pooling_include_prompt(False)
    features = model.preprocess(TEXTS, prompt="the sky ")
    assert features["prompt_length"] == 3
    expected = model.encode(TEXTS, prompt="the sky ", convert_to_tensor=True)
    torch.testing.assert_close(model(dict(features))["sentence_embedding"], expected, atol=1e-6, rtol=0)
    repeated = {**features, "prompt_length": torch.full((3,), 3)}
    torch.testing.assert_close(model(repeated)["sentence_embedding"], expected, atol=1e-6, rtol=0)


def test_packed_features_still_work(model: SentenceTransformer) -> None:
    features = model.tokenize(TEXTS)
    batch = Padding.of(features, CPU).batch
    packed = model(Features(batch)).sentences[batch.restore]
    torch.testing.assert_close(packed, model(features)["sentence_embedding"])


def test_a_batch_of_transformers_is_taken(model: SentenceTransformer) -> None:
    batch = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    result = model(batch)
    expected = model.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(result["sentence_embedding"], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        ({}, InputTypeError, r"the keys \(none\) and no input_ids; expected a tensor of integers"),
        ({"input_ids": torch.ones(2)}, InputTypeError, r"input_ids \(2,\) of torch.float32"),
        ({"input_ids": [[1]]}, InputTypeError, "use tokenize"),
        ({"input_ids": torch.ones(1, 2).long(), "attention_mask": torch.ones(1, 3)}, InputError, "of the shape"),
        ({"input_ids": torch.ones(1, 2).long(), "attention_mask": 1}, InputError, "of the shape"),
        ({"input_ids": torch.ones(1, 2).long(), "attention_mask": torch.zeros(1, 2)}, InputError, "no tokens"),
        ({"input_ids": torch.ones(1, 3).long(), "attention_mask": torch.tensor([[1, 0, 1]])}, InputError, "between"),
        ({"input_ids": torch.ones(0, 3).long()}, InputError, "no tokens"),
    ],
)
def test_what_is_no_padded_batch_is_refused(features: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Padding.of(features, CPU)


class Doubling(nn.Module):
    """A module of a caller, in the reference's style."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        assert features["input_ids"].shape == features["attention_mask"].shape
        features["sentence_embedding"] = features["sentence_embedding"] * 2
        features["note"] = features["input_ids"][:, 0]
        return features


class Centred(nn.Module):
    """A module of a caller that changes token embeddings."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**features, "token_embeddings": features["token_embeddings"] + 1}


class Silent(nn.Module):
    def forward(self, features: dict[str, Tensor]) -> None:
        return None


def test_modules_of_callers_see_dictionaries(model: SentenceTransformer) -> None:
    expected = 2 * model.encode(TEXTS, convert_to_tensor=True)
    longer = SentenceTransformer(modules=[*model, Doubling()], device="cpu")
    torch.testing.assert_close(longer.encode(TEXTS, convert_to_tensor=True), expected, atol=1e-6, rtol=0)
    result = longer(longer.tokenize(TEXTS))
    torch.testing.assert_close(result["sentence_embedding"], expected, atol=1e-6, rtol=0)
    assert result["note"].shape == (3,)


def test_modules_of_callers_change_token_embeddings(model: SentenceTransformer) -> None:
    transformer, pooling, _ = model
    changed = SentenceTransformer(modules=[transformer, Centred(), pooling], device="cpu")
    plain = SentenceTransformer(modules=[transformer, pooling], device="cpu").encode(TEXTS)
    assert abs(changed.encode(TEXTS) - plain - 1).max() < 1e-5
    result = changed(changed.preprocess(TEXTS, prompt="a "))
    assert result["sentence_embedding"].shape == (3, 32)


def test_a_module_that_returns_nothing_is_refused(model: SentenceTransformer) -> None:
    with pytest.raises(InputTypeError, match="got NoneType from Silent"):
        SentenceTransformer(modules=[*model, Silent()], device="cpu").encode(TEXTS)


def test_pairs_and_prompts_reach_a_module_of_a_caller(model: SentenceTransformer) -> None:
    longer = SentenceTransformer(modules=[*model, Doubling()], device="cpu")
    longer.set_pooling_include_prompt(False)
    pairs = [("a cat", "the dog"), ("sea", "sky")]
    expected = 2 * model.encode(pairs, prompt="the ")
    assert abs(longer.encode(pairs, prompt="the ") - expected).max() < 1e-6
