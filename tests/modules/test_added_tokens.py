"""Tokens can be added to a tokenizer; the encoder gets rows for them, and both are saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from minisbert import SentenceTransformer
from minisbert.errors import ConfigError, ModelError

TEXT = "the <new> frobnicate sat"


@pytest.mark.parametrize("architecture", ["bert", "roberta", "xlm-roberta", "distilbert", "mpnet"])
def test_tokens_are_added_and_saved(architecture: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model = SentenceTransformer(tiny(architecture), device="cpu")
    before, old = model.encode(["a cat"]), len(model[0].tokenizer)
    assert model[0].tokenizer.add_tokens(["frobnicate"]) == 1
    assert model[0].tokenizer.add_tokens("<new>", special_tokens=True) == 1
    assert model[0].tokenizer.add_tokens(["frobnicate"]) == 0
    assert len(model[0].tokenizer) == old + 2
    with pytest.raises(ModelError, match=r"after adding tokens call model\[0\]\.auto_model\.resize_token_embeddings"):
        model.encode([TEXT])
    table = model[0].auto_model.resize_token_embeddings(len(model[0].tokenizer))
    assert table is model[0].auto_model.get_input_embeddings()
    torch.testing.assert_close(table.weight[old], table.weight[:old].mean(0))
    assert model.encode(["a cat"]).tolist() == before.tolist()
    with torch.no_grad():
        table.weight[old:] += torch.randn(2, table.weight.shape[1])
    expected = model.encode([TEXT])
    model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["vocab_size"] == old + 2
    again = SentenceTransformer(tmp_path / "saved", device="cpu")
    assert again.encode([TEXT]).tolist() == expected.tolist()
    ids = again[0].tokenizer([TEXT]).ids.tolist()
    assert {old, old + 1} < set(ids)


def test_tokens_added_to_the_tokenizer_itself(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu")
    model.tokenizer.add_tokens(["frobnicate"])
    model[0].auto_model.resize_token_embeddings(len(model[0].tokenizer))
    expected = model.encode([TEXT])
    model.save_pretrained(tmp_path / "saved")
    assert SentenceTransformer(tmp_path / "saved", device="cpu").encode([TEXT]).tolist() == expected.tolist()


def test_a_table_keeps_its_size_or_gets_a_possible_one(tiny: Callable[[str], Path]) -> None:
    encoder = SentenceTransformer(tiny("bert"), device="cpu")[0].auto_model
    table = encoder.get_input_embeddings()
    assert encoder.resize_token_embeddings() is table
    assert encoder.resize_token_embeddings(table.num_embeddings) is table
    for wrong in (0, -1, 2.5, "12"):
        with pytest.raises(ConfigError, match="expected a whole number of at least 1"):
            encoder.resize_token_embeddings(wrong)
    assert encoder.resize_token_embeddings(10).weight.shape[0] == 10
