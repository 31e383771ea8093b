"""`models.StaticEmbedding`: features, training, tokenizer and files as the reference has them."""

from __future__ import annotations

import copy
import pickle
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from static_models import build_static
from tokenizers import Tokenizer
from torch import nn
from torch.utils.data import DataLoader

from minisbert.compat import models
from minisbert.compat.data import InputExample
from minisbert.compat.losses import CachedMultipleNegativesRankingLoss, MultipleNegativesRankingLoss
from minisbert.compat.model import SentenceTransformer
from minisbert.errors import ConfigError, InputError, InputTypeError

TEXTS = ["the dog ran", "", "a cat"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return build_static(tmp_path / "model")


@pytest.fixture
def model(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu")


@pytest.fixture
def tokenizer(folder: Path) -> Any:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_features(model: SentenceTransformer) -> None:
    features = model.tokenize(TEXTS)
    assert features["input_ids"].tolist() == [5, 8, 12, 6, 7]
    assert features["offsets"].tolist() == [0, 3, 3]
    assert model.preprocess(["cat"], prompt="a ")["input_ids"].tolist() == [6, 7]
    assert model.tokenize([]) == {}
    with pytest.raises(InputTypeError, match="expected several"):
        model.tokenize("a cat")
    with pytest.raises(ConfigError, match="got max_length=4 for preprocess"):
        model[0].preprocess(TEXTS, max_length=4)


def test_the_model_takes_features(model: SentenceTransformer) -> None:
    found = model(model.tokenize(TEXTS))
    assert list(found) == ["input_ids", "offsets", "sentence_embedding"]
    np.testing.assert_array_equal(found["sentence_embedding"].detach().numpy(), model.encode(TEXTS))
    step = model[1](model[0](model.tokenize(TEXTS)))
    np.testing.assert_array_equal(step["sentence_embedding"].detach().numpy(), model.encode(TEXTS))
    assert isinstance(model[0], models.StaticEmbedding)
    assert not isinstance(model[0], models.Transformer)
    assert (model.transformers_model, model.config) == (None, None)
    for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert (made.encode(TEXTS) == model.encode(TEXTS)).all()


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        ({"input_ids": torch.ones(2, 2).long()}, InputTypeError, r"got input_ids \(2, 2\) for a static model"),
        ({"input_ids": torch.ones(2).long()}, InputTypeError, "got offsets None for a static model"),
        ({"input_ids": torch.ones(2).long(), "offsets": torch.tensor([1])}, InputError, r"got offsets \[1\] for 2"),
        ({"input_ids": torch.ones(2).long(), "offsets": torch.tensor([0, 3])}, InputError, "where each text begins"),
    ],
)
def test_features_of_another_kind(
    features: dict[str, Any], error: type[Exception], message: str, model: SentenceTransformer
) -> None:
    with pytest.raises(error, match=message):
        model(features)


def test_names_of_the_table(model: SentenceTransformer) -> None:
    first = model[0]
    assert (first.num_embeddings, first.embedding_dim, first.get_embedding_dimension()) == (233, 48, 48)
    assert list(model.state_dict()) == [name for name, _ in model.named_parameters()] == ["0.embedding.weight"]
    assert [name for name, _ in model.named_modules()] == ["", "0", "0.embedding", "1"]
    zeros = {"0.embedding.weight": torch.zeros(233, 48)}
    assert model.load_state_dict(zeros) is not None
    assert not model.encode("a cat").any()
    model.load_state_dict({"0.auto_model.embedding.weight": torch.ones(233, 48)})
    assert model.encode("a cat").all()
    first.embedding = nn.EmbeddingBag(233, 7)
    assert model.encode(TEXTS).shape == (3, 7)
    with pytest.raises(ConfigError, match=r"got a Linear as embedding|got a int as embedding"):
        first.embedding = 3


def test_a_new_table(tokenizer: Any, folder: Path) -> None:
    first = models.StaticEmbedding(tokenizer, embedding_dim=12, base_model="bert")
    assert first.base_model == "bert"
    model = SentenceTransformer(modules=[first, models.Dense(12, 4), models.Normalize()], device="cpu")
    assert model.encode(TEXTS).shape == (3, 4)
    again = models.StaticEmbedding(tokenizer, first.embedding.weight.detach().numpy())
    assert torch.equal(
        again(again.preprocess(TEXTS))["sentence_embedding"], first(first.preprocess(TEXTS))["sentence_embedding"]
    )
    with pytest.raises(ConfigError, match="expected one of them"):
        models.StaticEmbedding(tokenizer)
    with pytest.raises(ConfigError, match="got dim=3 for StaticEmbedding"):
        models.StaticEmbedding(tokenizer, dim=3)
    with pytest.raises(ConfigError, match="expected a folder that model2vec has made"):
        models.StaticEmbedding.from_distillation("all-MiniLM-L6-v2", pca_dims=64)


def test_files(model: SentenceTransformer, folder: Path, tmp_path: Path) -> None:
    first = models.StaticEmbedding.load(str(folder))
    (tmp_path / "saved").mkdir()
    first.save(str(tmp_path / "saved"))
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "saved" / name).read_bytes() == (folder / name).read_bytes()
    vectors = build_static(tmp_path / "vectors", form="model2vec", normalize=False)
    first = models.StaticEmbedding.from_model2vec(str(vectors))
    assert first.base_model == str(vectors)
    model = SentenceTransformer(modules=[first], device="cpu")
    assert (model.encode(TEXTS) == SentenceTransformer(str(vectors), device="cpu").encode(TEXTS)).all()


@pytest.mark.filterwarnings("ignore::minisbert.errors.TruncationWarning")
def test_the_tokenizer_is_that_of_the_model(model: SentenceTransformer, tokenizer: Any, tmp_path: Path) -> None:
    assert model.tokenizer.encode("a cat").ids == [2, 6, 7, 3]  # unlike texts to embed, with special tokens
    assert model.max_seq_length == inf
    model.tokenizer.enable_truncation(2)
    assert model.tokenize(TEXTS)["input_ids"].tolist() == [5, 8, 6, 7]
    assert (model.encode(TEXTS)[0] == model.encode("the dog")).all()
    assert model.max_seq_length == 2
    model.max_seq_length = 1
    model.save(str(tmp_path / "saved"))
    assert SentenceTransformer(str(tmp_path / "saved"), device="cpu").max_seq_length == 1
    model.max_seq_length = None
    assert model.max_seq_length == inf
    with pytest.raises(ConfigError, match="got max_seq_length=0"):
        model.max_seq_length = 0
    tokenizer.enable_truncation(1)
    model.tokenizer = tokenizer
    assert model.tokenize(TEXTS)["input_ids"].tolist() == [5, 6]
    assert model.tokenizer is tokenizer


class _OwnLoss(nn.Module):
    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, sentence_features: Any, labels: Any) -> Any:
        self.seen.append([one["input_ids"].tolist() for one in sentence_features])
        first, second = (self.model(one)["sentence_embedding"] for one in sentence_features)
        return (first - second).square().sum()


def test_losses_on_features(model: SentenceTransformer) -> None:
    columns = [model.tokenize(["a cat", "the dog"]), model.tokenize(["dog", "the cat ran"])]
    plain = MultipleNegativesRankingLoss(model)(columns, None)
    assert torch.equal(plain, CachedMultipleNegativesRankingLoss(model, mini_batch_size=1)(columns, None))
    own = _OwnLoss(model)
    rows = [InputExample(texts=["a cat", "the dog ran"]), InputExample(texts=["the cat ran", "a"])]
    before = model[0].embedding.weight.detach().clone()
    model.fit([(DataLoader(rows, batch_size=2), own)], epochs=1, warmup_steps=0, show_progress_bar=False)
    assert own.seen == [[[6, 7, 5, 7, 12], [5, 8, 12, 6]]]
    assert not torch.equal(before, model[0].embedding.weight)


class _Twice(nn.Module):
    def forward(self, features: Any) -> Any:
        assert features["offsets"].tolist() == [0, 3, 3]
        return {**features, "sentence_embedding": features["sentence_embedding"] * 2}


def test_a_module_of_the_caller(folder: Path) -> None:
    first = models.StaticEmbedding.load(str(folder))
    model = SentenceTransformer(modules=[first, _Twice()], device="cpu")
    plain = SentenceTransformer(modules=[first], device="cpu").encode(TEXTS)
    np.testing.assert_array_equal(model(model.tokenize(TEXTS))["sentence_embedding"].detach().numpy(), plain * 2)
