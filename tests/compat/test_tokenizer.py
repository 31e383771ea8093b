"""`model.tokenizer` is one of transformers, in step with the tokenizer that the model uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from minisbert.compat.model import SentenceTransformer
from minisbert.errors import ConfigError

TEXTS = ["a cat sat on the mat", "dog", "the sea is blue"]


@pytest.fixture
def model(tiny: Callable[[str], Path]) -> SentenceTransformer:
    return SentenceTransformer(tiny("bert"), device="cpu")


@pytest.mark.parametrize("architecture", ["bert", "roberta", "xlm-roberta", "mpnet"])
def test_ids_are_those_of_the_model(architecture: str, tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny(architecture), device="cpu")
    batch = model.tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    own = model.tokenize(TEXTS)
    assert batch["input_ids"].tolist() == own["input_ids"].tolist()
    assert batch["attention_mask"].tolist() == own["attention_mask"].tolist()
    assert own["modality"] == "text"
    assert model.tokenizer is model[0].tokenizer is model.processor is model[0].processor


def test_methods_of_transformers(model: SentenceTransformer) -> None:
    tokenizer = model.tokenizer
    assert tokenizer.tokenize("a cat") == ["a", "cat"]
    assert tokenizer.decode(tokenizer.encode("a cat")) == "[CLS] a cat [SEP]"
    assert tokenizer.convert_ids_to_tokens([2, 3]) == ["[CLS]", "[SEP]"]
    assert (tokenizer.cls_token, tokenizer.vocab_size) == ("[CLS]", len(tokenizer))


def test_padding_there_does_not_reach_the_model(model: SentenceTransformer) -> None:
    before = model.encode(TEXTS)
    model.tokenizer(TEXTS, padding="max_length", max_length=20, truncation=True)
    assert (model.encode(TEXTS) == before).all()


def test_lengths_are_the_same_on_both_sides(model: SentenceTransformer) -> None:
    assert model.tokenizer.model_max_length == model.max_seq_length == 48
    model.max_seq_length = 10
    assert model.tokenizer.model_max_length == 10
    model.tokenizer.model_max_length = 4
    assert model.max_seq_length == model[0].max_seq_length == 4
    assert model.tokenize(TEXTS)["input_ids"].shape == (3, 4)


def test_the_side_of_truncation(model: SentenceTransformer) -> None:
    model.max_seq_length = 4
    assert model.tokenize(["a cat sat on"])["input_ids"].tolist()[0][1:3] == model.tokenizer("a cat")["input_ids"][1:3]
    model.tokenizer.truncation_side = "left"
    assert model.tokenize(["a cat sat on"])["input_ids"].tolist()[0][1:3] == model.tokenizer("sat on")["input_ids"][1:3]


def test_special_tokens_can_be_added(model: SentenceTransformer) -> None:
    known = len(model.tokenizer)
    model.tokenizer.add_special_tokens({"additional_special_tokens": ["[X]"]})
    model[0].auto_model.resize_token_embeddings(len(model.tokenizer))
    assert model.tokenize(["a [X]"])["input_ids"].tolist()[0][2] == known


@pytest.mark.filterwarnings("ignore:a new tokenizer.json")
def test_another_tokenizer(model: SentenceTransformer, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    other = SentenceTransformer(tiny("distilbert"), device="cpu").tokenizer
    other.add_tokens(["[X]"])
    model.tokenizer = other
    assert model.tokenizer is other
    model[0].auto_model.resize_token_embeddings(len(other))
    embedding = model.encode("a [X]")
    model.save_pretrained(tmp_path / "other")
    again = SentenceTransformer(tmp_path / "other", device="cpu")
    assert abs(again.encode("a [X]") - embedding).max() < 1e-6
    model.tokenizer = other
    with pytest.raises(ConfigError, match="expected a fast one of transformers"):
        model.tokenizer = str.split


def test_lengths_beyond_the_positions(model: SentenceTransformer) -> None:
    with pytest.warns(UserWarning, match="max_seq_length=1024 is set to 64"):
        model.max_seq_length = 1024
    assert model.max_seq_length == model.get_max_seq_length() == 64
    model.max_seq_length = 10
    with pytest.warns(UserWarning, match="max_seq_length=None is set to 64"):
        model.max_seq_length = None
    for value in ("10", 2):
        with pytest.raises(ConfigError, match="expected a whole number of tokens above 2"):
            model.max_seq_length = value
